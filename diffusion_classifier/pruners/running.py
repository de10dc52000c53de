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
    """Sums over the rounds of B images that took the same rounds.

    Attributes
    ----------
    values : Tensor of shape (B, 5, P), dtype float64
        For each prompt: the sum of its round means; the sums of its differences to the leader
        before each round, of their squares and of their cubes; and the mean of a last round that is
        shorter than the one before, which counts only if another follows.
    n_rounds : int
        Rounds in the sums.
    first_size, last_size : int
        Draws of the first and last round.
    is_last_short : bool
    """

    values: Tensor
    n_rounds: int = 0
    first_size: int = 0
    last_size: int = 0
    is_last_short: bool = False

    @classmethod
    def none(cls, n_prompts: int) -> Self:
        """Return the sums of one image without any round."""
        return cls(torch.zeros(1, _FIELDS, n_prompts, dtype=torch.float64))

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
        return cls(values, n_rounds, first_size(round_of))

    @property
    def totals(self) -> Tensor:
        """Sums of the round means, [B, P]."""
        return self.values[:, 0]

    @property
    def sums(self) -> Sums:
        """Sums over the differences to the leader before each round."""
        return Sums(self.n_rounds - 1, *self.values[:, 1:4].unbind(1))

    def after(self, contributions: Tensor, sizes: Sequence[int]) -> Self:
        """Return the sums after further rounds, of the contributions [B, P, sum(sizes)]."""
        state = self
        for draws in contributions.split(list(sizes), 2):
            state = state._after_round(draws.mean(2), draws.shape[2])
        return state

    def _after_round(self, means: Tensor, size: int) -> Self:
        state = self
        if self.is_last_short:
            state = self._with(self.values[:, 4])
        if size < self.last_size:
            values = torch.cat([state.values[:, :4], means[:, None]], 1)
            return state._replace(values=values, last_size=size, is_last_short=True)
        state = state._with(means)
        return state._replace(
            first_size=self.first_size or size, last_size=size, is_last_short=False
        )

    def _with(self, means: Tensor) -> Self:
        """Return the sums with one more round."""
        added = torch.zeros_like(self.values)
        added[:, 0] = means
        if self.n_rounds and means.shape[1] > 1:
            differences = behind_leader_of(self.totals, means)
            added[:, 1] = differences
            added[:, 2] = differences**2
            added[:, 3] = added[:, 2] * differences
        return self._replace(values=self.values + added, n_rounds=self.n_rounds + 1)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """Join the sums of images that took the same rounds."""
        return states[0]._replace(values=torch.cat([state.values for state in states]))

    def split(self) -> list[Self]:
        """Return the sums of each image."""
        return [self._replace(values=values) for values in self.values.split(1)]
