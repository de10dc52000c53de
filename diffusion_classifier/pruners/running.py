"""What a repeated test keeps of past rounds: five numbers per class instead of all rounds.

A pruner that needs no more of the past is *incremental*: a race adds each round to the sums and
asks :meth:`~diffusion_classifier.pruners.Pruner.judge`, at a cost that does not grow with the
number of draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .round_tests import (
    Floats,
    Sums,
    behind_earlier_leader,
    behind_leader_of,
    first_size,
    round_means,
    without_warnings,
)

_FIELDS = 5


class RunningRounds(NamedTuple):
    """Sums over the first rounds of a race, for B images; each may have taken another number.

    Attributes
    ----------
    values : ndarray of shape (B, 5, P), dtype float64
        For each prompt: the sum of its round means; the sums of its differences to the leader
        before each round, of their squares and of their cubes; and the mean of a last round that is
        shorter than the one before, which counts only if another follows.
    counts : ndarray of shape (B, 3), dtype int64
        For each image: rounds in the sums, draws of the last round, and 1 if that is short, else 0.
    first_size : int
        Draws of the first round.
    """

    values: Floats
    counts: NDArray[np.int64]
    first_size: int = 0

    @classmethod
    def none(cls, n_prompts: int) -> Self:
        """Return the sums of one image without any round."""
        return cls(np.zeros((1, _FIELDS, n_prompts)), np.zeros((1, 3), np.int64))

    @classmethod
    def of(cls, contributions: Tensor, round_of: Tensor) -> Self:
        """Sum all rounds of contributions [B, P, J] at once."""
        means = round_means(contributions, round_of).detach().double().numpy()
        n_images, n_prompts, n_rounds = means.shape
        values = np.zeros((n_images, _FIELDS, n_prompts))
        values[:, 0] = means.sum(2)
        if n_prompts > 1:
            _, *sums = Sums.of(behind_earlier_leader(means))
            values[:, 1:4] = np.stack(sums, 1)
        size = first_size(round_of)
        return cls(values, np.tile([[n_rounds, size, 0]], (n_images, 1)), size)

    @property
    def n_rounds(self) -> NDArray[np.int64]:
        """Rounds in the sums, [B, 1]."""
        return self.counts[:, :1]

    @property
    def totals(self) -> Floats:
        """Sums of the round means, [B, P]."""
        return self.values[:, 0]

    @property
    def sums(self) -> Sums:
        """Sums over the differences to the leader before each round."""
        return Sums(self.n_rounds.astype(float) - 1, *self.values[:, 1:4].swapaxes(0, 1))

    @without_warnings
    def after(self, contributions: Floats, sizes: Sequence[int]) -> Self:
        """Return the sums after further rounds, of the contributions [B, P, sum(sizes)]."""
        state, start = self, 0
        for size in sizes:
            state = state._after_round(contributions[..., start : start + size].mean(2), size)
            start += size
        return state

    def _after_round(self, means: Floats, size: int) -> Self:
        before, last_size, was_short = self.counts.T
        values = self._with(self.values[:, 4], was_short) if was_short.any() else self.values
        counts = np.empty_like(self.counts)
        counts[:, 0], counts[:, 1], counts[:, 2] = before + was_short, size, size < last_size
        is_whole = 1 - counts[:, 2]
        values = self._replace(values=values, counts=counts)._with(means, is_whole)
        values[:, 4] = means
        counts[:, 0] += is_whole
        return self._replace(values=values, counts=counts, first_size=self.first_size or size)

    def _with(self, means: Floats, counted: NDArray[np.int64]) -> Floats:
        """Return the values with one more round, for images where it is counted, [B]."""
        values = self.values.copy()
        values[:, 0] += means
        if means.shape[1] > 1:
            differences = behind_leader_of(self.totals, means)
            differences[self.counts[:, 0] == 0] = 0
            squares = differences**2
            values[:, 1] += differences
            values[:, 2] += squares
            values[:, 3] += squares * differences
        if not counted.all():
            values[counted == 0] = self.values[counted == 0]
        return values

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """Join the sums of images of one race."""
        return cls(
            np.concatenate([state.values for state in states]),
            np.concatenate([state.counts for state in states]),
            max(state.first_size for state in states),
        )

    def split(self) -> list[Self]:
        """Return the sums of each image."""
        return [
            type(self)(self.values[i : i + 1], self.counts[i : i + 1], self.first_size)
            for i in range(len(self.counts))
        ]
