"""The draws of one race: a sampler's rounds, stored and limited to the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import InputValueError
from ..noise.draws import Draws
from ..noise.schedule import NoiseSchedule
from ..samplers.base import Sampler
from ..utils.validation import check_positive_integer


class DrawTape:
    """The rounds of a sampler, stored because images reach a round at different times.

    Parameters
    ----------
    rounds : iterator of Draws
    max_draws : int or float
        Budget of draws. The last round is shortened to it, but an antithetic pair (the same
        noise with both signs) is never split.
    """

    def __init__(self, rounds: Iterator[Draws], max_draws: float = math.inf) -> None:
        self._source = rounds
        self._max_draws = max_draws
        self._rounds: list[Draws] = []
        self._sizes: list[int] = []  # draws of each round
        self.n_draws = 0
        self._n_joined = 0
        # Joined once per number of rounds and not at every look, of which each image has many.
        self._timesteps = torch.empty(0, dtype=torch.int64)
        self._density = torch.empty(0, dtype=torch.float64)

    def __getitem__(self, number: int) -> Draws | None:
        """Return round ``number``, or None if the sampler or the budget ends before it."""
        while number >= len(self._rounds):
            room = self._max_draws - self.n_draws
            draws = next(self._source, None) if room > 0 else None
            if draws is None:
                return None
            room = int(min(room, len(draws)))
            draws = draws.head(room - room % 2 if draws.antithetic else room)
            if not len(draws):
                return None
            self._append(draws)
        return self._rounds[number]

    def _append(self, draws: Draws) -> None:
        self._rounds.append(draws)
        self._sizes.append(len(draws))
        self.n_draws += len(draws)

    def _join(self) -> None:
        """Join the rounds that were taken since the last time."""
        new = self._rounds[self._n_joined :]
        if not new:
            return
        self._timesteps = torch.cat([self._timesteps, *(draws.timesteps for draws in new)])
        self._density = torch.cat([self._density, *(draws.density for draws in new)])
        self._n_joined = len(self._rounds)

    def __iter__(self) -> Iterator[Draws]:
        """Iterate over the rounds."""
        number = 0
        while (draws := self[number]) is not None:
            yield draws
            number += 1

    @classmethod
    def of(cls, sampler: Sampler, schedule: NoiseSchedule, seed: int, max_draws: int) -> DrawTape:
        """Make the tape of a sampler within a budget.

        Raises
        ------
        InputValueError
            If the budget is not a positive integer, is too small for a round, or is smaller than
            the fixed number of draws of a sampler that has one.
        """
        check_positive_integer("max_draws", max_draws)
        if not sampler.endless:
            n_draws = sum(map(len, sampler.rounds(schedule, seed)))
            if n_draws > max_draws:
                raise InputValueError(
                    f"{sampler} has {n_draws} draws, but the pruner stops at max_draws={max_draws}"
                    f"; set the pruner's max_draws={n_draws}, or sample fewer timesteps."
                )
        tape = cls(sampler.rounds(schedule, seed), max_draws)
        if tape[0] is None:
            raise InputValueError(
                f"max_draws={max_draws} is too small for one round of {sampler}; increase it."
            )
        return tape

    def sizes(self, first: int, last: int) -> tuple[int, ...]:
        """Return the draws of rounds ``first`` to ``last - 1``, which were taken."""
        return tuple(self._sizes[first:last])

    @property
    def timesteps(self) -> Tensor:
        """Timesteps of the rounds taken so far, [J]."""
        self._join()
        return self._timesteps

    @property
    def density(self) -> Tensor:
        """Proposal densities of the rounds taken so far, [J]."""
        self._join()
        return self._density

    @property
    def round_of(self) -> Tensor:
        """The round of each draw taken so far, [J]."""
        return torch.arange(len(self._sizes)).repeat_interleave(torch.tensor(self._sizes))
