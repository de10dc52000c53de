"""A threshold on the summed difference to the leader."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..utils.validation import check_positive_integer
from .base import Pruner, behind_leader


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
            raise InputValueError(f"error={self.error!r} must be at least 0 and below 1.")
        shortfalls = [
            -float(differences.cumsum(1)[:, self.min_draws - 1 :].min())
            for differences in record.paired_differences(weights)
            if differences.mean(1).min() > 0
        ]
        if not shortfalls:
            raise InputValueError(
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
            raise InputValueError(
                "ThresholdPruner has no threshold: give one, ThresholdPruner(threshold=...), or "
                "let it learn from labelled images, fit(X, y)."
            )
        if threshold < 0:
            raise InputValueError(f"threshold={threshold!r} must not be negative.")
        if contributions.shape[2] < check_positive_integer("min_draws", self.min_draws):
            return active
        return active & ~(behind_leader(contributions, active).sum(2) > threshold)

    def next_look(self, n_draws: int) -> int:
        return max(n_draws + 1, self.min_draws)
