r"""The interface of samplers.

A *draw* j is a timestep ``t_j`` and a noise ``eps_j ~ N(0, I)``. All images and classes share the
same draws, so errors differ between classes because of the classes, not because of the noise.
A *round* is a small set of draws taken between two pruning decisions. Rounds are independent of
each other, and each one is spread over [0, T).

The noise of draw j comes from a generator keyed by ``(seed, j)``. Results therefore do not depend
on the order of images, the batch size, the device or the number of draws taken before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from sklearn.base import BaseEstimator

from ..learner import Learner
from ..noise.draws import Draws
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import Table
from ..utils.display import DocumentedMixin


class Sampler(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Base class of samplers, which choose timesteps and noise round by round.

    Attributes
    ----------
    endless : bool, default=True
        Whether the sampler yields rounds without end. If False, it yields a fixed grid, and a
        pruner whose ``max_draws`` would cut the grid short is rejected: a part of a grid would
        leave out a part of [0, T).
    """

    endless: bool = True
    _constraints: ClassVar[Table] = {}

    @abstractmethod
    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        """Yield rounds of draws, without end if ``endless`` is True.

        Parameters
        ----------
        schedule : NoiseSchedule
            Timesteps are integers in [0, schedule.n_timesteps).
        seed : int
            The same seed gives the same draws.

        Yields
        ------
        Draws
            The draws of one round.
        """
