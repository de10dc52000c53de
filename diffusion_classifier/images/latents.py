"""Latents: encoded images, which several classifiers and label sets can reuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Latents:
    """Encoded images, returned by ``DiffusionClassifier.encode`` and accepted wherever X is.

    Indexing with a slice, integers or a boolean mask returns the Latents of those images, so
    cross-validation can split them. Indexing with one integer returns one latent as a tensor.

    Parameters
    ----------
    values : Tensor of shape (N, ...)
        One latent per image, on the CPU.
    made_by : mapping
        Identity of the network and the image format that produced the latents. A classifier with
        other settings refuses them.

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
        """Shape ``(n_images, ...)``; lets scikit-learn index with a whole array at once."""
        return tuple(self.values.shape)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):  # scikit-learn indexes with [indices, ...]
            index = index[0]
        picked = np.arange(len(self))[index]
        if picked.ndim == 0:
            return self.values[int(picked)]
        # Copy instead of slicing: pickling a view would pickle all latents.
        return Latents(self.values[torch.from_numpy(picked)], self.made_by)

    def __repr__(self) -> str:
        return f"Latents(n_images={len(self)}, latent_shape={self.shape[1:]})"
