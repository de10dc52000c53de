"""The embedded model: a small Stable Diffusion of coloured handwritten digits.

It is an ordinary ``StableDiffusionPipeline`` folder and uses the same code as any other pipeline.
:mod:`diffusion_classifier.datasets` makes the scenes that it was trained on.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from ..datasets import CAPTION_WORDS
from .loading.cache import cached
from .loading.origin import DATA, EMBEDDED, Origin
from .pipeline import DiffusersBackend


def proposal_path() -> Path:
    """Path of the model's timestep proposal, which ``examples/embedded_proposal.py`` computes."""
    return DATA / "scenes_proposal.safetensors"


def load_embedded(
    device: Any = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    image_shape: tuple[int, ...] | None = None,
) -> DiffusersBackend:
    """Load the embedded model as a backend, once per process.

    Parameters
    ----------
    device : torch.device or str, default="cpu"
    dtype : torch.dtype, default=torch.float32
    image_shape : tuple of int or None, default=None
        Shape of the images whose flattened rows X holds, such as (32, 32, 3).

    Returns
    -------
    DiffusersBackend
        Its ``default_template`` is that of the training captions, ``"a {}"``; its
        ``default_proposal`` favours the timesteps at which the model tells classes apart.

    Examples
    --------
    >>> from diffusion_classifier.backends import load_embedded
    >>> load_embedded(image_shape=(32, 32, 3))
    DiffusersBackend(StableDiffusionPipeline, 'embedded')
    """
    from safetensors.torch import load_file

    origin = Origin(EMBEDDED, device=str(torch.device(device)), dtype=dtype)
    backend = copy.copy(cached(origin, DiffusersBackend.from_origin))
    backend.default_template = "a {}"
    backend.known_words = frozenset(CAPTION_WORDS)
    backend.default_proposal = load_file(proposal_path())["proposal"]
    backend.image_shape = image_shape
    return backend
