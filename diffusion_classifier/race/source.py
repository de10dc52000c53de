"""The interface between the race and whatever computes or looks up errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from ..noise.draws import Draws


class Request(NamedTuple):
    """A request for errors of one image: each of these prompts on each draw of these rounds."""

    image: int
    prompts: Tensor  # [A], int64
    rounds: list[Draws]

    @property
    def n_draws(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def n_rows(self) -> int:
        return len(self.prompts) * self.n_draws


class ErrorSource(Protocol):
    """Computes or looks up errors."""

    n_prompts: int

    @property
    def rows_wanted(self) -> int:
        """Rows per call that keep the source busy."""
        ...

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Errors [A, J] of each request, on the CPU."""
        ...

    def release(self, image: int) -> None:
        """This image will not be asked for again."""
        ...


@dataclass
class Result:
    """One image's finished race.

    Attributes
    ----------
    image : int
    errors : Tensor of shape (P, J)
        NaN where a prompt was not evaluated.
    active : Tensor of shape (P,), dtype bool
        Prompts that were left at the end.
    """

    image: int
    errors: Tensor
    active: Tensor

    @property
    def n_evaluations(self) -> int:
        return int((~self.errors.isnan()).sum())
