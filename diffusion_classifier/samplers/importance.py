r"""Importance sampling of timesteps.

Timesteps are drawn from a proposal p(t), and each error is divided by ``q(t) = T p(t)`` so that
means stay unbiased. Let d(t) be the difference between the errors of two classes on the same draw.
The variance of ``w(t) d(t) / q(t)`` is least for ``p(t)`` proportional to ``w(t) sqrt(E d(t)^2)``.
Mixing p with the uniform distribution (a *defensive mixture*) bounds the factor ``1 / q(t)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord, Profile
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import Arrays, Reals, Table, as_numbers
from ..utils.display import short_repr
from .stratified import StratifiedSampler


class ImportanceSampler(StratifiedSampler):
    """Stratified rounds that take more draws at the timesteps that distinguish classes best.

    Parameters
    ----------
    round_size : int, default=2
        Draws per round, at most 100,000.
    antithetic : bool, default=False
        Take draws in pairs with noises eps and -eps at the same timestep. A pair counts as one
        observation, so a round has half as many timesteps.
    proposal : array-like of shape (T,), optional
        Non-negative, unnormalised probability of each timestep. By default ``fit(X, y)`` learns
        it, as w(t) times the root mean square of the difference between a rival's error and
        that of the true class.
    uniform_share : float in (0, 1], default=0.2
        Share of the uniform distribution in the proposal. No error is multiplied by more than
        ``1 / uniform_share``.

    Attributes
    ----------
    proposal_ : Tensor of shape (T,), dtype float64
        The learned proposal, unnormalised.

    Raises
    ------
    InputValueError
        In ``rounds``, if ``proposal`` is neither given nor learned or does not have one finite,
        non-negative entry per timestep, or another parameter has a value that it does not allow.

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

    _constraints: ClassVar[Table] = {
        **StratifiedSampler._constraints,
        "proposal": Arrays(0) | None,
        "uniform_share": Reals(0, 1, "right"),
    }

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
        """Learn the proposal for errors that are weighted by ``weights``."""
        rms = Profile.learn(record).rms
        self.proposal_ = rms if weights is None else rms * weights
        return self

    def _placement(self, schedule: NoiseSchedule) -> Callable[[NDArray], tuple[NDArray, NDArray]]:
        p = self._probabilities(schedule.n_timesteps)
        cumulative = p.cumsum()
        cumulative /= cumulative[-1]

        def place(u: NDArray) -> tuple[NDArray, NDArray]:
            timesteps = np.searchsorted(cumulative, u, side="right")
            timesteps = np.minimum(timesteps, len(p) - 1)  # in case u rounds to 1
            return timesteps, p[timesteps] * len(p)

        return place

    def _probabilities(self, n_timesteps: int) -> NDArray[np.float64]:
        """Compute p(t), the proposal mixed with the uniform distribution, of shape (T,)."""
        proposal = self._given_or_learned("proposal")
        p = as_numbers("proposal", proposal, low=0)
        if p.shape != (n_timesteps,):
            raise InputValueError(
                f"proposal={short_repr(proposal)} has shape {p.shape}; give one entry for each of "
                f"the {n_timesteps} timesteps."
            )
        if not p.any():
            p = np.ones_like(p)
        elif np.isinf(p.sum()):
            p = p / p.max()
        return (1 - self.uniform_share) * p / p.sum() + self.uniform_share / n_timesteps
