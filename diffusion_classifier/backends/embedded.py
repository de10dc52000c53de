"""The model inside the package: a small Stable Diffusion of coloured, handwritten digits.

It is an ordinary ``StableDiffusionPipeline`` folder and takes the code path of any other; see
:mod:`diffusion_classifier.datasets` for the scenes it was trained on.
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
    """File of the timesteps that its sampler proposes; see ``examples/embedded_proposal.py``."""
    return DATA / "scenes_proposal.safetensors"


def load_embedded(
    device: Any = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    image_shape: tuple[int, ...] | None = None,
) -> DiffusersBackend:
    """The embedded model as a backend, loaded once per process.

    Parameters
    ----------
    device : torch.device or str, default="cpu"
    dtype : torch.dtype, default=torch.float32
    image_shape : tuple of int or None, default=None
        Shape of the pictures whose flattened rows X holds, such as (32, 32, 3).

    Returns
    -------
    DiffusersBackend
        With the template of its training captions, ``"a {}"``, and the timesteps at which it
        tells classes apart as ``default_proposal``.

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
