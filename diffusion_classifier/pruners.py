r"""Who stays in the race: after a round, which prompts still deserve evaluations.

A pruner sees the *contributions* ``w(t_j) err_j / q_j - log prior`` of every prompt still
active, on the draws all of them share, and says which stay. It is a pure function: it holds no
state between calls, and never sees another image's errors, so an image's answer does not
depend on its neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from .profile import Learner
from .validation import check_positive_integer


class Pruner(Learner, BaseEstimator, ABC):
    """Decides which prompts (or classes) remain active, and when to stop.

    Attributes
    ----------
    max_draws : int
        Draws after which a race ends whoever is left: the one budget of a prediction.
    """

    max_draws: int

    @abstractmethod
    def select(self, contributions: Tensor, active: Tensor, round_of: Tensor) -> Tensor:
        """Which of the active prompts stay active.

        Parameters
        ----------
        contributions : Tensor of shape (B, P, J), dtype float64
            B images that have taken the same J draws; NaN where a prompt was not evaluated.
        active : Tensor of shape (B, P), dtype bool
            Active prompts have all J draws.
        round_of : Tensor of shape (J,), dtype int64
            The round that each draw belongs to; rounds are independent.

        Returns
        -------
        Tensor of shape (B, P), dtype bool
            A subset of ``active``, with at least one prompt per image.
        """

    def next_look(self, n_draws: int) -> int:
        """Draws at which ``select`` may next drop a prompt, if it has looked at ``n_draws``.

        Rounds up to it need no decision between them, so they can share a batch.
        """
        return n_draws + 1

    def max_evaluations(self, n_prompts: int) -> int:
        """Most evaluations one image can cost."""
        return n_prompts * check_positive_integer("max_draws", self.max_draws)


class NoPruning(Pruner):
    """Evaluates every prompt on every draw.

    Parameters
    ----------
    max_draws : int, default=200
        Draws per prompt.

    Examples
    --------
    >>> from diffusion_classifier.pruners import NoPruning
    >>> NoPruning(max_draws=100).max_evaluations(n_prompts=10)
    1000
    """

    def __init__(self, max_draws: int = 200) -> None:
        self.max_draws = max_draws

    def select(self, contributions: Tensor, active: Tensor, round_of: Tensor) -> Tensor:
        return active

    def next_look(self, n_draws: int) -> int:
        return self.max_draws


class StagedPruner(Pruner):
    """Keeps the prompts of smallest mean error at fixed numbers of draws.

    Parameters
    ----------
    n_draws : sequence of int, default=(20,)
        Draws after which each cut is made, increasing.
    keep : sequence of int, default=(5,)
        Prompts kept at each cut, not increasing.
    max_draws : int, default=200
        Draws that the last survivors get.

    Raises
    ------
    ValueError
        In ``select``: lengths differ, an entry is not a positive integer, ``n_draws`` does not
        increase, ``keep`` increases, or ``max_draws`` is not above the last cut.

    References
    ----------
    A. C. Li et al., arXiv 2303.16203, section 3.3 and its published script. Their ImageNet
    schedule is ``StagedPruner((50, 100, 500), (500, 50, 10), max_draws=1000)``.

    Examples
    --------
    >>> from diffusion_classifier.pruners import StagedPruner
    >>> StagedPruner(n_draws=(20,), keep=(5,), max_draws=200).max_evaluations(n_prompts=10)
    1100
    """

    def __init__(
        self, n_draws: Sequence[int] = (20,), keep: Sequence[int] = (5,), max_draws: int = 200
    ) -> None:
        self.n_draws = n_draws
        self.keep = keep
        self.max_draws = max_draws

    def _stages(self) -> list[tuple[int, int]]:
        """(draws, keep) of each cut, validated."""
        draws = [check_positive_integer("n_draws", n) for n in self.n_draws]
        keep = [check_positive_integer("keep", k) for k in self.keep]
        budget = check_positive_integer("max_draws", self.max_draws)
        if len(draws) != len(keep):
            raise ValueError(
                f"n_draws={self.n_draws!r} and keep={self.keep!r} must have one entry per cut."
            )
        if draws != sorted(set(draws)) or keep != sorted(keep, reverse=True):
            raise ValueError(
                f"n_draws={self.n_draws!r} must increase and keep={self.keep!r} must not."
            )
        if draws and budget <= draws[-1]:
            raise ValueError(f"max_draws={budget} must be above the last cut at {draws[-1]} draws.")
        return list(zip(draws, keep, strict=True))

    def select(self, contributions: Tensor, active: Tensor, round_of: Tensor) -> Tensor:
        reached = [keep for draws, keep in self._stages() if draws <= contributions.shape[2]]
        if not reached or reached[-1] >= active.shape[1]:
            return active
        means = contributions.mean(2).masked_fill(~active, torch.inf)
        best = means.argsort(dim=1, stable=True)[:, : reached[-1]]
        return torch.zeros_like(active).scatter(1, best, True) & active

    def next_look(self, n_draws: int) -> int:
        return min((n for n, _ in self._stages() if n > n_draws), default=self.max_draws)

    def max_evaluations(self, n_prompts: int) -> int:
        total, alive, before = 0, n_prompts, 0
        for draws, keep in self._stages():
            total += alive * (draws - before)
            alive, before = min(alive, keep), draws
        return total + (alive * (self.max_draws - before) if alive > 1 else 0)
