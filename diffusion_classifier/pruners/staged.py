"""A pruner that cuts at fixed numbers of draws, as in the search of Li et al."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputValueError
from ..utils.constraints import MANY, Integers, Sequences, Table
from ..utils.display import short_repr
from .base import BuiltInPruner, Look, Pruner


class StagedPruner(BuiltInPruner):
    """Keep the classes with the smallest mean errors at fixed numbers of draws.

    A class with several prompts is ranked by its best prompt. A class that is kept keeps all its
    active prompts.

    Parameters
    ----------
    n_draws : sequence of int, default=(20,)
        Draws at which each cut is made, increasing.
    keep : sequence of int, default=(5,)
        Number of classes kept at each cut, not increasing.
    max_draws : int, default=200
        Draws of the classes that survive all cuts, at most 100,000.

    Raises
    ------
    InputValueError
        In ``select``, if ``n_draws`` and ``keep`` differ in length, an entry is not a positive
        integer, ``n_draws`` does not increase, ``keep`` increases, or ``max_draws`` is not above
        the last cut.

    References
    ----------
    A. C. Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, arXiv
    2303.16203, section 3.3 and its published script. Their ImageNet schedule is
    ``StagedPruner((50, 100, 500), (500, 50, 10), max_draws=1000)``.

    Examples
    --------
    >>> from diffusion_classifier.pruners import StagedPruner
    >>> StagedPruner(n_draws=(20,), keep=(5,), max_draws=200).max_evaluations(n_classes=10)
    1100
    """

    _constraints: ClassVar[Table] = {
        **Pruner._constraints,
        "n_draws": Sequences(Integers(1, MANY)),
        "keep": Sequences(Integers(1)),
    }

    def __init__(
        self, n_draws: Sequence[int] = (20,), keep: Sequence[int] = (5,), max_draws: int = 200
    ) -> None:
        self.n_draws = n_draws
        self.keep = keep
        self.max_draws = max_draws

    def _check(self) -> None:
        super()._check()
        draws, keep = list(self.n_draws), list(self.keep)
        given = f"n_draws={short_repr(self.n_draws)} and keep={short_repr(self.keep)}"
        if len(draws) != len(keep):
            raise InputValueError(
                f"{given} must have one entry per cut, but have {len(draws)} and {len(keep)}."
            )
        if draws != sorted(set(draws)) or keep != sorted(keep, reverse=True):
            raise InputValueError(
                f"{given} are wrong: n_draws must increase and keep must not increase."
            )
        if draws and self.max_draws <= draws[-1]:
            raise InputValueError(
                f"max_draws={self.max_draws} must be above the last cut, at {draws[-1]} draws."
            )

    def _stages(self) -> list[tuple[int, int]]:
        """Return the (draws, keep) of each cut."""
        self._check()
        draws, keep = map(int, self.n_draws), map(int, self.keep)
        return list(zip(draws, keep, strict=True))

    def _survivors(self, look: Look) -> Tensor:
        contributions, active, _, class_of = look
        reached = [keep for draws, keep in self._stages() if draws <= contributions.shape[2]]
        n_classes = int(class_of.max()) + 1
        if not reached or reached[-1] >= n_classes:
            return active
        means = contributions.mean(2).masked_fill(~active, torch.inf)
        best = means.new_full((len(means), n_classes), torch.inf)
        best = best.scatter_reduce(1, class_of.expand_as(means), means, "amin")
        kept = best.argsort(dim=1, stable=True)[:, : reached[-1]]
        classes = torch.zeros_like(best, dtype=torch.bool).scatter(1, kept, True)
        return classes[:, class_of] & active

    def next_look(self, n_draws: int) -> int:
        return min((n for n, _ in self._stages() if n > n_draws), default=self.max_draws)

    def max_classes(self, n_draws: int, n_classes: int) -> int:
        return min([n_classes, *(keep for draws, keep in self._stages() if draws <= n_draws)])
