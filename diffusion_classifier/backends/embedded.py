"""The model inside the package: a small Stable Diffusion of coloured, handwritten digits.

It is an ordinary ``StableDiffusionPipeline`` folder and takes the code path of any other; see
:mod:`diffusion_classifier.datasets` for the scenes it was trained on.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..datasets import CAPTION_WORDS

if TYPE_CHECKING:
    from .pipeline import DiffusersBackend

EMBEDDED = "embedded"  # its name in an Origin, so that nothing saved holds this machine's paths


def embedded_path() -> Path:
    """Folder of the embedded model."""
    return Path(__file__).parents[1] / "data" / "scenes"


def proposal_path() -> Path:
    """File of the timesteps that its sampler proposes; see ``examples/embedded_proposal.py``."""
    return embedded_path().with_name("scenes_proposal.safetensors")


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

    from .cache import cached_backend  # which imports this module
    from .loading import Origin

    origin = Origin(EMBEDDED, device=str(torch.device(device)), dtype=dtype)
    backend = copy.copy(cached_backend(origin))
    backend.default_template = "a {}"
    backend.default_proposal = load_file(proposal_path())["proposal"]
    backend.image_shape = image_shape
    return backend


def warn_of_unknown_words(prompts: Iterable[str]) -> None:
    """Warn of words that the embedded model never read: they say nothing to it."""
    words = dict.fromkeys(word for prompt in prompts for word in re.findall(r"\w+", prompt.lower()))
    unknown = [word for word in words if word not in CAPTION_WORDS]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        warnings.warn(
            f"the embedded model does not know {', '.join(map(repr, unknown[:5]))}{more}: it read "
            "of digits in words and their colours only, and what it answers on anything else means "
            'nothing. Name the classes as in "a red seven on a blue background", or give as '
            "backend a model that knows them.",
            UserWarning,
            stacklevel=2,
        )
