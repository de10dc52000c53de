"""Interface between the race and the sources that compute or look up errors."""

from __future__ import annotations

import itertools
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
    n_ahead: int = 0  # last draws, whole rounds, that may turn out to be superfluous

    @property
    def n_prompts(self) -> int:
        return self.prompts.shape[0]

    @property
    def n_draws(self) -> int:
        return sum(map(len, self.rounds))

    @property
    def n_rows(self) -> int:
        return self.n_prompts * self.n_draws

    def without_ahead(self) -> Request:
        """Return the request for the draws that are needed in any case."""
        needed = self.n_draws - self.n_ahead
        ends = itertools.accumulate(map(len, self.rounds))
        rounds = [draws for draws, end in zip(self.rounds, ends, strict=True) if end <= needed]
        return self._replace(rounds=rounds, n_ahead=0)


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


Answer = Callable[[], list[Tensor]]  # waits for the errors [A, J] of each request, on the CPU


class ErrorSource(Protocol):
    """Protocol of objects that compute or look up errors for the race.

    Inherit from it: ``begin`` and ``steps_at_once`` then need no definition.
    """

    n_prompts: int

    @property
    def steps_at_once(self) -> int:
        """Steps that may be under way: 2 if a device computes one while the host judges another."""
        return 1

    @property
    def rows_wanted(self) -> int:
        """Rows per step that keep the source busy."""
        ...

    @property
    def batch_rows(self) -> int:
        """Rows of a full batch; 1 if batches do not matter."""
        ...

    @property
    def few_rows(self) -> int:
        """Rows that take little longer than a single one; 0 if no row may be superfluous."""
        ...

    def begin(self, requests: Sequence[Request]) -> Answer:
        """Begin to compute the errors of a step, and return what waits for them.

        By default, nothing is computed before somebody waits.
        """
        return lambda: self.evaluate(requests)

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Return the errors [A, J] of each request, on the CPU.

        Some or all of a request's ``n_ahead`` last draws may be left out.
        """
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

    def renew(self) -> None:
        """Look errors up again, because races begin again."""
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
