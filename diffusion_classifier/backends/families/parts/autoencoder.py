"""Encoding of images with a pipeline's autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ....errors import InputValueError
from ....utils.constraints import as_numbers
from ....utils.display import short_repr
from ....utils.locks import fork_safe_lock
from ....utils.quiet import quiet

LARGE_IMAGE = 768 * 768  # pixels; larger images are encoded one by one
ENCODING = fork_safe_lock()  # encoding changes the dtype and slicing of a shared autoencoder


@contextmanager
def full_precision(vae: Any) -> Iterator[None]:
    """Run a half-precision autoencoder in float32 if its configuration asks for it."""
    dtype = vae.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    if not (half and vae.config.get("force_upcast", False)):
        yield
        return
    with quiet():
        vae.to(torch.float32)
        try:
            yield
        finally:
            vae.to(dtype)


@contextmanager
def sliced(vae: Any, images: Tensor) -> Iterator[None]:
    """Let the autoencoder encode large images one by one, if it can, to bound its memory."""
    large = images.shape[-2] * images.shape[-1] >= LARGE_IMAGE
    if not large or getattr(vae, "use_slicing", True):  # slicing is on already, or not offered
        yield
        return
    vae.enable_slicing()
    try:
        yield
    finally:
        vae.disable_slicing()


def mode(encoded: Any) -> Tensor:
    """Return the latents that an autoencoder gave, or the mode of the posterior that it gave.

    Tiny and deep-compression autoencoders are deterministic and have no posterior.
    """
    for name in ("latents", "latent"):
        if name in encoded:
            return encoded[name]
    return encoded.latent_dist.mode()


def mode_of_film(vae: Any, images: Tensor) -> Tensor:
    """Return the mode of the posterior of an autoencoder of films, given one frame each."""
    return mode(vae.encode(images.unsqueeze(2)))[:, :, 0]


def check_scaling(vae: Any) -> None:
    """Raise an InputValueError if the configuration's shift or scale of latents is unusable."""
    for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std"):
        value = vae.config.get(name)
        if value is None:
            continue
        numbers = as_numbers(f"the autoencoder's {name}", value)
        if name in ("scaling_factor", "latents_std") and (numbers == 0).any():
            raise InputValueError(
                f"the autoencoder's {name}={short_repr(value)} must not be 0, which "
                "would make all latents equal or infinite; correct its config.json."
            )


def normalised(vae: Any, latents: Tensor) -> Tensor:
    """Shift and scale latents [B, C, h, w] as in training, per channel if so configured."""
    config = vae.config
    shift: Tensor | float = 0.0
    scale: Tensor | float = 1.0
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        shift, scale = (
            latents.new_tensor(config[name]).view(-1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )
    elif config.get("shift_factor") is not None:
        shift = config.shift_factor
    factor = config.get("scaling_factor")
    return (latents - shift) * ((1.0 if factor is None else factor) / scale)
