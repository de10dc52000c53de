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
    >>> from diffusion_classifier.latents import Latents
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


def check_made_by(
    subject: str,
    made_by: Mapping[str, Any],
    settings: Mapping[str, Any],
    advice: str = "make it again",
) -> None:
    """Refuse what was computed with another network or other settings.

    Parameters
    ----------
    subject : str
        What it is, for the message.
    made_by : mapping
        Settings that it was made with.
    settings : mapping
        Those of the classifier that is to use it.
    advice : str
        What to do then, for the message.

    Raises
    ------
    ValueError
        If they differ; the message says in what.

    Examples
    --------
    >>> check_made_by("this table was", {"loss": "l1"}, {"loss": "l2"})
    Traceback (most recent call last):
    ValueError: this table was made with loss='l1', this classifier has 'l2'; make it again.
    """
    changed = [
        f"{name}={made_by.get(name)!r}, this classifier has {settings.get(name)!r}"
        for name in sorted(set(made_by) | set(settings))
        if made_by.get(name) != settings.get(name)
    ]
    if changed:
        raise ValueError(f"{subject} made with {'; '.join(changed)}; {advice}.")
