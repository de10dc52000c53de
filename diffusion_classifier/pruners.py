r"""Who stays in the race: after a round, which prompts still deserve evaluations.

A pruner sees the *contributions* ``w(t_j) err_j / q_j - log prior`` of every prompt still
active, on the draws all of them share, and says which stay. It is a pure function: it holds no
state between calls, and never sees another image's errors, so an image's answer does not
depend on its neighbours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from scipy.special import stdtrit
from sklearn.base import BaseEstimator
from torch import Tensor

from .display import DocumentedMixin
from .profile import FitRecord, Learner
from .validation import check_positive_integer


class Pruner(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Decides which prompts (or classes) remain active, and when to stop.

    Attributes
    ----------
    max_draws : int
        Draws after which a race ends whoever is left: the one budget of a prediction.
    """

    max_draws: int

    @abstractmethod
    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        """Which of the active prompts stay active.

        Parameters
        ----------
        contributions : Tensor of shape (B, P, J), dtype float64
            B images that have taken the same J draws; NaN where a prompt was not evaluated.
        active : Tensor of shape (B, P), dtype bool
            Active prompts have all J draws.
        round_of : Tensor of shape (J,), dtype int64
            The round that each draw belongs to; rounds are independent.
        class_of : Tensor of shape (P,), dtype int64, optional
            The class of each prompt. By default each is a class of its own.

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

    def max_classes(self, n_draws: int, n_classes: int) -> int:
        """Most of ``n_classes`` classes that are left after a look at ``n_draws`` draws."""
        return n_classes

    def max_evaluations(self, n_classes: int) -> int:
        """Most evaluations of one image, with one prompt per class and a look after every draw."""
        total, n_left = 0, n_classes
        for n_draws in range(1, check_positive_integer("max_draws", self.max_draws) + 1):
            total += n_left
            n_left = self.max_classes(n_draws, n_left)
            if n_left == 1:
                break
        return total


class NoPruning(Pruner):
    """Evaluates every prompt on every draw.

    Parameters
    ----------
    max_draws : int, default=200
        Draws per prompt.

    Examples
    --------
    >>> from diffusion_classifier.pruners import NoPruning
    >>> NoPruning(max_draws=100).max_evaluations(n_classes=10)
    1000
    """

    def __init__(self, max_draws: int = 200) -> None:
        self.max_draws = max_draws

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        return active

    def next_look(self, n_draws: int) -> int:
        return self.max_draws


class StagedPruner(Pruner):
    """Keeps the classes of smallest mean error at fixed numbers of draws.

    A class of several prompts is judged by its best one, and kept with all that are active.

    Parameters
    ----------
    n_draws : sequence of int, default=(20,)
        Draws after which each cut is made, increasing.
    keep : sequence of int, default=(5,)
        Classes kept at each cut, not increasing.
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
    >>> StagedPruner(n_draws=(20,), keep=(5,), max_draws=200).max_evaluations(n_classes=10)
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

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        reached = [keep for draws, keep in self._stages() if draws <= contributions.shape[2]]
        if class_of is None:
            class_of = torch.arange(active.shape[1])
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


class PairedTestPruner(Pruner):
    """Drops a prompt when a paired t-test says that it is behind the leader.

    Every draw is an observation, and the test is repeated after every round at the same level:
    cheap, and without a promise, as each further look is another chance to err.
    :class:`~diffusion_classifier.racing.RacingPruner` makes one.

    Parameters
    ----------
    min_draws : int, default=20
        Draws before the first test, at least 2.
    max_draws : int, default=200
        Draws after which a race ends whoever is left.
    p_value : float in (0, 1/2), default=2e-3
        One-sided level of each test.

    Raises
    ------
    ValueError
        In ``select``: a parameter is out of range.

    References
    ----------
    K. Clark and P. Jaini, "Text-to-Image Diffusion Models are Zero-Shot Classifiers", NeurIPS
    2023, arXiv 2303.15233, section 3.1.

    Examples
    --------
    >>> contributions = torch.tensor([[[1.0, 1.1, 0.9], [2.0, 2.0, 2.1], [1.0, 1.0, 1.1]]])
    >>> pruner = PairedTestPruner(min_draws=3, p_value=0.05)
    >>> pruner.select(contributions, torch.ones(1, 3, dtype=torch.bool), torch.arange(3))
    tensor([[ True, False,  True]])
    """

    def __init__(self, min_draws: int = 20, *, max_draws: int = 200, p_value: float = 2e-3) -> None:
        self.min_draws = min_draws
        self.max_draws = max_draws
        self.p_value = p_value

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        if not 0 < self.p_value < 0.5:
            raise ValueError(f"p_value={self.p_value!r} must be between 0 and 1/2.")
        n_draws = contributions.shape[2]
        if n_draws < max(2, check_positive_integer("min_draws", self.min_draws)):
            return active
        differences = behind_leader(contributions, active)
        error = differences.std(2) / math.sqrt(n_draws)
        critical = float(stdtrit(n_draws - 1, 1 - self.p_value))
        return active & ~(differences.mean(2) > critical * error)

    def next_look(self, n_draws: int) -> int:
        return max(n_draws + 1, self.min_draws)


class ThresholdPruner(Pruner):
    """Drops a prompt whose cumulative contribution is too far above the leader's.

    Parameters
    ----------
    threshold : float, optional
        Largest ``sum_j (c_pj - c_leader,j)`` of a prompt that stays; in nats with "likelihood"
        weights. By default learned in ``fit(X, y)``: the smallest that would have kept the true
        class of all but a share ``error`` of the recorded images (of those the full record gets
        right).
    error : float in [0, 1), default=0.02
        Without effect if ``threshold`` is given.
    min_draws : int, default=4
        Draws before the first cut.
    max_draws : int, default=200
        Draws after which a race ends whoever is left.

    Attributes
    ----------
    threshold_ : float
        Learned.

    Raises
    ------
    ValueError
        In ``select``: there is neither a given threshold nor a learned one, or it is negative.

    References
    ----------
    Follows the sift-and-refine idea of H. Chen et al., "Diffusion Models are Certifiably Robust
    Classifiers", NeurIPS 2024, arXiv 2402.02316: sift out classes by a threshold on few
    timesteps, refine the rest on many. Here the sieve is used after every round.

    Examples
    --------
    >>> contributions = torch.tensor([[[1.0, 1.1], [2.0, 2.0], [1.0, 1.3]]])
    >>> pruner = ThresholdPruner(1.0, min_draws=2)
    >>> pruner.select(contributions, torch.ones(1, 3, dtype=torch.bool), torch.arange(2))
    tensor([[ True, False,  True]])
    """

    def __init__(
        self,
        threshold: float | None = None,
        *,
        error: float = 0.02,
        min_draws: int = 4,
        max_draws: int = 200,
    ) -> None:
        self.threshold = threshold
        self.error = error
        self.min_draws = min_draws
        self.max_draws = max_draws

    @property
    def needs_record(self) -> bool:  # type: ignore[override]
        return self.threshold is None

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn the threshold.

        Raises
        ------
        ValueError
            If ``error`` is out of range, or the record gets no image right.
        """
        if not 0 <= self.error < 1:
            raise ValueError(f"error={self.error!r} must be at least 0 and below 1.")
        shortfalls = [
            -float(differences.cumsum(1)[:, self.min_draws - 1 :].min())
            for differences in record.paired_differences(weights)
            if differences.mean(1).min() > 0
        ]
        if not shortfalls:
            raise ValueError(
                f"none of the {len(record)} recorded images is classified correctly, so there is "
                "no threshold to learn; give threshold=... or other images."
            )
        worst = torch.tensor(shortfalls, dtype=torch.float64).clamp(min=0)
        self.threshold_ = float(worst.quantile(1 - self.error, interpolation="higher"))
        return self

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        threshold = getattr(self, "threshold_", None) if self.threshold is None else self.threshold
        if threshold is None:
            raise ValueError(
                "ThresholdPruner has no threshold: give one, ThresholdPruner(threshold=...), or "
                "let it learn from labelled images, fit(X, y)."
            )
        if threshold < 0:
            raise ValueError(f"threshold={threshold!r} must not be negative.")
        if contributions.shape[2] < check_positive_integer("min_draws", self.min_draws):
            return active
        return active & ~(behind_leader(contributions, active).sum(2) > threshold)

    def next_look(self, n_draws: int) -> int:
        return max(n_draws + 1, self.min_draws)


def behind_leader(values: Tensor, active: Tensor) -> Tensor:
    """Values [B, P, J] less those of the active row of least mean; NaN where not evaluated.

    Examples
    --------
    >>> import torch
    >>> values = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]])
    >>> behind_leader(values, torch.tensor([[True, True]])).tolist()
    [[[1.0, 1.0], [0.0, 0.0]]]
    """
    leader = values.mean(2).masked_fill(~active, torch.inf).argmin(1)
    return values - values[torch.arange(len(leader)), leader][:, None]
