"""Latents: images as a network sees them, encoded once and asked many questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Latents:
    """Encoded images; made by ``DiffusionClassifier.encode`` and accepted wherever X is.

    A slice, a list or array of integers, or a boolean mask gives the Latents of those images, so
    that cross-validation splits them; an integer gives one latent. Pickles hold the latents alone.

    Parameters
    ----------
    values : Tensor of shape (N, ...)
        One latent per image, on the CPU.
    made_by : mapping
        The network and picture size that they belong to; others are refused.

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.images import Latents
    >>> latents = Latents(torch.zeros(5, 4, 8, 8), {"name": "some model"})
    >>> latents[[0, 3]], latents[0].shape
    (Latents(n_images=2, latent_shape=(4, 8, 8)), torch.Size([4, 8, 8]))
    """

    def __init__(self, values: Tensor, made_by: Mapping[str, Any]) -> None:
        self.values = values
        self.made_by = dict(made_by)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_images, ...)``: scikit-learn takes what has a shape by arrays of indices at once."""
        return tuple(self.values.shape)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):  # scikit-learn asks for [indices, ...]
            index = index[0]
        picked = np.arange(len(self))[index]
        if picked.ndim == 0:
            return self.values[int(picked)]
        # Indexed, not sliced: a view would pickle all of the latents.
        return Latents(self.values[torch.from_numpy(picked)], self.made_by)

    def __repr__(self) -> str:
        return f"Latents(n_images={len(self)}, latent_shape={self.shape[1:]})"
