"""What a repeated test keeps of past rounds: five numbers per class instead of all rounds.

A pruner that needs no more of the past is *incremental*: a race adds each round to the sums and
asks :meth:`~diffusion_classifier.pruners.Pruner.judge`, at a cost that does not grow with the
number of draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .round_tests import Sums, behind_earlier_leader, behind_leader_of, first_size, round_means

_FIELDS = 5


class RunningRounds(NamedTuple):
    """Sums over the first rounds of a race, for B images; each may have taken another number.

    Attributes
    ----------
    values : Tensor of shape (B, 5, P), dtype float64
        For each prompt: the sum of its round means; the sums of its differences to the leader
        before each round, of their squares and of their cubes; and the mean of a last round that is
        shorter than the one before, which counts only if another follows.
    counts : Tensor of shape (B, 3), dtype int64
        For each image: rounds in the sums, draws of the last round, and 1 if that is short, else 0.
    first_size : int
        Draws of the first round.
    """

    values: Tensor
    counts: Tensor
    first_size: int = 0

    @classmethod
    def none(cls, n_prompts: int) -> Self:
        """Return the sums of one image without any round."""
        values = torch.zeros(1, _FIELDS, n_prompts, dtype=torch.float64)
        return cls(values, torch.zeros(1, 3, dtype=torch.int64))

    @classmethod
    def of(cls, contributions: Tensor, round_of: Tensor) -> Self:
        """Sum all rounds of contributions [B, P, J] at once."""
        means = round_means(contributions, round_of)
        n_images, n_prompts, n_rounds = means.shape
        values = torch.zeros(n_images, _FIELDS, n_prompts, dtype=means.dtype)
        values[:, 0] = means.sum(2)
        if n_prompts > 1:
            sums = Sums.of(behind_earlier_leader(means))
            values[:, 1:4] = torch.stack([sums.total, sums.squares, sums.cubes], 1)
        size = first_size(round_of)
        return cls(values, torch.tensor([[n_rounds, size, 0]]).expand(n_images, 3), size)

    @property
    def n_rounds(self) -> Tensor:
        """Rounds in the sums, [B, 1]."""
        return self.counts[:, :1]

    @property
    def totals(self) -> Tensor:
        """Sums of the round means, [B, P]."""
        return self.values[:, 0]

    @property
    def sums(self) -> Sums:
        """Sums over the differences to the leader before each round."""
        return Sums(self.n_rounds.double() - 1, *self.values[:, 1:4].unbind(1))

    def after(self, contributions: Tensor, sizes: Sequence[int]) -> Self:
        """Return the sums after further rounds, of the contributions [B, P, sum(sizes)]."""
        state = self
        for draws in contributions.split(list(sizes), 2):
            state = state._after_round(draws.mean(2), draws.shape[2])
        return state

    def _after_round(self, means: Tensor, size: int) -> Self:
        before, last_size, was_short = self.counts.unbind(1)
        values = self._with(self.values[:, 4], was_short) if was_short.any() else self.values
        is_short = (size < last_size).long()
        counts = torch.stack([before + was_short, torch.full_like(last_size, size), is_short], 1)
        values = self._replace(values=values, counts=counts)._with(means, 1 - is_short)
        values[:, 4] = means
        counts[:, 0] += 1 - is_short
        return self._replace(values=values, counts=counts, first_size=self.first_size or size)

    def _with(self, means: Tensor, counted: Tensor) -> Tensor:
        """Return the values with one more round, for images where it is counted, [B]."""
        values = self.values.clone()
        values[:, 0] += means
        if means.shape[1] > 1:
            differences = behind_leader_of(self.totals, means)
            differences.masked_fill_(self.n_rounds == 0, 0)
            squares = differences**2
            values[:, 1] += differences
            values[:, 2] += squares
            values[:, 3] += squares * differences
        return values if counted.all() else values.where(counted[:, None, None] == 1, self.values)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """Join the sums of images of one race."""
        return cls(
            torch.cat([state.values for state in states]),
            torch.cat([state.counts for state in states]),
            max(state.first_size for state in states),
        )

    def split(self) -> list[Self]:
        """Return the sums of each image."""
        parts = zip(self.values.split(1), self.counts.split(1), strict=True)
        return [self._replace(values=values, counts=counts) for values, counts in parts]
