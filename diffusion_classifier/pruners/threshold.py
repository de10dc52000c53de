"""A pruner with a threshold on the summed difference to the leader."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..utils.constraints import Reals, Table
from .base import LeaderPruner, Look


class ThresholdPruner(LeaderPruner):
    """Drop a prompt whose summed contributions are too far above those of the leader.

    Parameters
    ----------
    threshold : float, optional
        Largest ``sum_j (c_pj - c_leader,j)`` at which prompt p stays, where ``c_pj`` is its
        contribution on draw j; not negative. The unit is the nat with "likelihood" weights. By
        default ``fit(X, y)`` learns it from the recorded images that all draws together classify
        correctly: it is the smallest threshold that keeps the true class in all of them but a
        share ``error``.
    error : float in [0, 1), default=0.02
        Share of images whose true class the learned threshold may drop. It has no effect if
        ``threshold`` is given.
    min_draws : int, default=4
        Draws before the first cut.
    max_draws : int, default=200
        Draws after which a race ends even if several classes are still active, at
        most 100,000.

    Attributes
    ----------
    threshold_ : float
        The learned threshold.

    Raises
    ------
    InputValueError
        In ``select``, if ``threshold`` is neither given nor learned, or a parameter has a value
        that it does not allow.

    References
    ----------
    H. Chen et al., "Diffusion Models are Certifiably Robust Classifiers", NeurIPS 2024, arXiv
    2402.02316. Their sift-and-refine sifts out classes by a threshold on few timesteps and
    refines the rest on many; this pruner applies a threshold after every round.

    Examples
    --------
    >>> contributions = torch.tensor([[[1.0, 1.1], [2.0, 2.0], [1.0, 1.3]]])
    >>> pruner = ThresholdPruner(1.0, min_draws=2)
    >>> pruner.select(contributions, torch.ones(1, 3, dtype=torch.bool), torch.arange(2))
    tensor([[ True, False,  True]])
    """

    _constraints: ClassVar[Table] = {
        **LeaderPruner._constraints,
        "threshold": Reals(0) | None,
        "error": Reals(0, 1, "left"),
    }

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
        InputValueError
            If a parameter has a value that it does not allow, or no recorded image is classified
            correctly.
        """
        self._check()
        shortfalls = [  # how far each true class was behind at its worst look
            # a budget below ``min_draws`` leaves one look, at its end
            -float(differences.cumsum(1)[:, min(self.min_draws, differences.shape[1]) - 1 :].min())
            for differences in record.paired_differences(weights)
            if differences.mean(1).min() > 0
        ]
        if not shortfalls:
            raise InputValueError(
                f"none of the {len(record)} recorded images is classified correctly, so no "
                "threshold can be learned; pass threshold=... or fit on other images."
            )
        worst = torch.tensor(shortfalls, dtype=torch.float64).clamp(min=0)
        self.threshold_ = float(worst.quantile(1 - self.error, interpolation="higher"))
        return self

    def _survivors(self, look: Look) -> Tensor:
        self._given_or_learned("threshold")  # before the first ``min_draws`` draws are paid for
        return super()._survivors(look)

    def _too_far(self, differences: Tensor) -> Tensor:
        return differences.sum(2) > float(self._given_or_learned("threshold"))
