r"""Timesteps drawn where they matter: t ~ p(t), each error divided by ``q(t) = T p(t)``.

The variance of ``w(t) d(t) / q(t)``, d being the paired difference of two classes, is least for
``p(t)`` proportional to ``w(t) sqrt(E d(t)^2)``. A share of p is uniform (a *defensive mixture*),
so that no error is ever multiplied by more than the inverse of that share.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord, Profile
from ..noise.schedule import NoiseSchedule
from .stratified import StratifiedSampler


class ImportanceSampler(StratifiedSampler):
    """Stratified rounds with a random shift, of timesteps proposed where classes differ.

    Parameters
    ----------
    round_size : int, default=2
        Draws per round.
    antithetic : bool, default=False
        Take every noise with both signs at the same timestep; a pair is one observation.
    proposal : array-like of shape (T,), optional
        Probabilities of the timesteps up to a factor, not negative. By default learned in
        ``fit(X, y)``: proportional to w(t) times the root mean square of the paired difference.
    uniform_share : float in (0, 1], default=0.2
        Share of draws that the uniform distribution proposes: an error is multiplied by
        ``1 / uniform_share`` at most.

    Attributes
    ----------
    proposal_ : Tensor of shape (T,), dtype float64
        Learned.

    Raises
    ------
    ValueError
        In ``rounds``: there is no proposal, it does not fit the schedule, or ``uniform_share``
        is out of range.

    References
    ----------
    T. Hesterberg, "Weighted average importance sampling and defensive mixture distributions",
    Technometrics 1995; A. Owen, "Monte Carlo theory, methods and examples", ch. 9.

    Examples
    --------
    >>> sampler = ImportanceSampler(proposal=[0.0, 0.0, 1.0, 1.0], uniform_share=0.5)
    >>> draws = next(sampler.rounds(NoiseSchedule.flow(4), seed=0))
    >>> draws.timesteps.tolist(), draws.density.tolist()
    ([2, 3], [1.5, 1.5])
    """

    def __init__(
        self,
        round_size: int = 2,
        *,
        antithetic: bool = False,
        proposal: Any = None,
        uniform_share: float = 0.2,
    ) -> None:
        super().__init__(round_size, antithetic=antithetic)
        self.proposal = proposal
        self.uniform_share = uniform_share

    @property
    def needs_record(self) -> bool:  # type: ignore[override]
        return self.proposal is None

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn the proposal from a record, for errors that will get these weights."""
        rms = Profile.learn(record).rms
        self.proposal_ = rms if weights is None else rms * weights
        return self

    def _place(self, u: NDArray, schedule: NoiseSchedule) -> tuple[NDArray, NDArray]:
        p = self._probabilities(schedule.n_timesteps)
        cumulative = p.cumsum()
        # Rounding may leave the last sum below u.
        timesteps = np.searchsorted(cumulative / cumulative[-1], u, side="right")
        timesteps = np.minimum(timesteps, len(p) - 1)
        return timesteps, p[timesteps] * len(p)

    def _probabilities(self, n_timesteps: int) -> NDArray[np.float64]:
        proposal = getattr(self, "proposal_", None) if self.proposal is None else self.proposal
        if proposal is None:
            raise InputValueError(
                "ImportanceSampler has no proposal: give one, ImportanceSampler(proposal=...), or "
                "let it learn from labelled images, fit(X, y)."
            )
        p = torch.as_tensor(proposal, dtype=torch.float64).numpy()
        if p.shape != (n_timesteps,) or not np.isfinite(p).all() or (p < 0).any():
            raise InputValueError(
                f"proposal of shape {p.shape} must hold one finite, non-negative number for each "
                f"of the {n_timesteps} timesteps."
            )
        if not 0 < self.uniform_share <= 1:
            raise InputValueError(
                f"uniform_share={self.uniform_share!r} must be above 0, at most 1."
            )
        if p.sum() == 0:
            p = np.ones_like(p)
        return (1 - self.uniform_share) * p / p.sum() + self.uniform_share / n_timesteps
