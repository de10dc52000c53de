r"""Which draws (t, eps) to take, and in which rounds.

A *draw* j is a timestep ``t_j`` and a noise ``eps_j ~ N(0, I)``; it serves every image and
every class, so that errors differ between classes by what the classes say, not by their luck.
A *round* is a small set of draws taken between two pruning decisions. Rounds are independent
of each other, and each is spread over [0, T), so that every prefix of rounds is too.

The noise of draw j comes from a generator keyed by ``(seed, j)``: results do not depend on
image order, batch size, device or on how many draws were taken before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from sklearn.base import BaseEstimator

from ..learner import Learner
from ..noise.draws import Draws
from ..noise.schedule import NoiseSchedule
from ..utils.display import DocumentedMixin


class Sampler(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Chooses timesteps and noise, round by round.

    Attributes
    ----------
    endless : bool
        Whether rounds never end. A sampler with a grid of its own is not: a budget that cut its
        grid would silently leave out some of the range of timesteps, and is refused.
    """

    endless: bool = True

    @abstractmethod
    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        """Rounds of draws; endless unless the sampler has a grid of its own.

        Parameters
        ----------
        schedule : NoiseSchedule
            Timesteps are integers in [0, schedule.n_timesteps).
        seed : int
            Same seed, same draws.
        """
