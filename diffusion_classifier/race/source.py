"""Interface between the race and the sources that compute or look up errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from ..noise.draws import Draws
from ..scoring.candidates import Candidates
from ..scoring.class_losses import Scoring


class Request(NamedTuple):
    """Request for one image's errors: every prompt on every draw of the rounds."""

    image: int
    prompts: Tensor  # [A], int64
    rounds: list[Draws]
    start: int = 0  # place of the first draw among those of the race

    @property
    def n_draws(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def n_rows(self) -> int:
        return len(self.prompts) * self.n_draws


class Start(NamedTuple):
    """What one image starts its race with.

    Attributes
    ----------
    active : Tensor of shape (P,), dtype bool
        Prompts in the race, at least one.
    log_prior : Tensor of shape (K,), optional
        Log prior of each class for this image; by default that of the scoring.
    """

    active: Tensor
    log_prior: Tensor | None = None

    @classmethod
    def among(
        cls, candidates: Candidates | None, scoring: Scoring
    ) -> Callable[[int], Start] | None:
        """Return how each image starts if it races its candidates; None if all classes race."""
        if candidates is None:
            return None

        def start(image: int) -> Start:
            own = candidates.of(image)
            return cls(own.prompts(scoring), own.log_prior(scoring))

        return start


class ErrorSource(Protocol):
    """Protocol of objects that compute or look up errors for the race."""

    n_prompts: int

    @property
    def rows_wanted(self) -> int:
        """Rows per call that keep the source busy."""
        ...

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Return the errors [A, J] of each request, on the CPU."""
        ...

    def release(self, image: int) -> None:
        """Free an image's data; it will not be requested again."""
        ...


class KnownErrors(Protocol):
    """Protocol of records of errors that were computed earlier."""

    n_prompts: int

    def known(self, image: int) -> Tensor:
        """Return an image's errors [P, J] on the first J draws of the race; NaN if missing."""
        ...

    def release(self, image: int) -> None:
        """Free an image's data; it will not be requested again."""
        ...


@dataclass
class Result:
    """Outcome of one image's race.

    Attributes
    ----------
    image : int
    errors : Tensor of shape (P, J)
        NaN where a prompt was not evaluated.
    active : Tensor of shape (P,), dtype bool
        Prompts still in the race at its end.
    """

    image: int
    errors: Tensor
    active: Tensor

    @property
    def n_evaluations(self) -> int:
        return int((~self.errors.isnan()).sum())
