"""Errors that were recorded earlier as error source, and the network for the rest.

Noise is keyed by draw and shared by classes. The errors of labels added later, or of draws taken
later, are therefore on the same noise as those recorded before: together they are what one longer
run would have computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputValueError
from ..noise.draws import Draws
from .source import ErrorSource, Request

_ROWS_PER_STEP = 2**18  # without a network; bounds the memory of a replay


class RecordedErrors:
    """An error source that looks errors up, and asks another source for what is missing.

    Parameters
    ----------
    errors : Tensor of shape (N, P, J)
        Recorded errors of the first J draws; NaN where there is none. Of each image and prompt,
        those before its first NaN are used.
    source : ErrorSource, optional
        Computes what is missing. Without one, a missing error is an error.
    on_recorded : callable, optional
        Called with the number of errors that were looked up after every step.
    """

    def __init__(
        self,
        errors: Tensor,
        source: ErrorSource | None = None,
        on_recorded: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.n_prompts = errors.shape[1]
        self._errors = errors
        self._source = source
        self._on_recorded = on_recorded
        self._taken: dict[int, int] = {}  # draws of each image in flight
        self._tails: dict[tuple[Draws, int], Draws] = {}

    @property
    def rows_wanted(self) -> int:
        return _ROWS_PER_STEP if self._source is None else self._source.rows_wanted

    def release(self, image: int) -> None:
        self._taken.pop(image, None)
        if self._source is not None:
            self._source.release(image)

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Errors [A, J] of each request, on the CPU.

        Raises
        ------
        InputValueError
            If an error was not recorded and there is no source to compute it.
        """
        found: list[Tensor] = []
        missing: list[Request] = []
        places: list[tuple[Tensor, Tensor, int]] = []  # answer, its rows, its first column
        n_recorded = 0
        for request in requests:
            answer, start = self._look_up(request)
            found.append(answer)
            if not bool(answer.isnan().any()):
                n_recorded += answer.numel()
                continue
            n_known = (answer.isnan().cumsum(1) == 0).sum(1)
            n_recorded += int(n_known.sum())
            if self._source is None:
                raise _not_recorded(request, n_known, start)
            for n in n_known.unique().tolist():
                if n < request.n_draws:
                    rows = (n_known == n).nonzero()[:, 0]
                    rounds = self._after(request.rounds, n)
                    missing.append(Request(request.image, request.prompts[rows], rounds))
                    places.append((answer, rows, n))
        self._on_recorded(n_recorded)
        computed = self._source.evaluate(missing) if self._source and missing else []
        for (answer, rows, n), errors in zip(places, computed, strict=True):
            answer[rows, n:] = errors
        return found

    def _look_up(self, request: Request) -> tuple[Tensor, int]:
        """Errors [A, J] of a request, NaN where not recorded, and its image's first draw."""
        start = self._taken.get(request.image, 0)
        self._taken[request.image] = start + request.n_draws
        known = self._errors[request.image, request.prompts, start : start + request.n_draws]
        if known.shape[1] == request.n_draws:
            return known, start
        answer = known.new_full((len(known), request.n_draws), torch.nan)
        answer[:, : known.shape[1]] = known
        return answer, start

    def _after(self, rounds: Sequence[Draws], n_draws: int) -> list[Draws]:
        """Rounds without their first draws."""
        rest = []
        for draws in rounds:
            n = min(n_draws, len(draws))
            n_draws -= n
            if n < len(draws):
                rest.append(self._tail(draws, n) if n else draws)
        return rest

    def _tail(self, draws: Draws, n: int) -> Draws:
        """All but the first n draws; the same object each time, as its noise is cached by it."""
        if (draws, n) not in self._tails:
            fixed = draws.fixed_noise
            self._tails[draws, n] = replace(
                draws,
                timesteps=draws.timesteps[n:],
                density=draws.density[n:],
                noise_keys=draws.noise_keys[n:],
                signs=draws.signs[n:],
                fixed_noise=None if fixed is None else fixed[n:],
            )
        return self._tails[draws, n]


def _not_recorded(request: Request, n_known: Tensor, start: int) -> InputValueError:
    """The error about the first draw that is missing."""
    row = int((n_known < request.n_draws).nonzero()[0])
    return InputValueError(
        f"the error of image {request.image}, prompt {int(request.prompts[row])}, draw "
        f"{start + int(n_known[row])} was not recorded, because that prompt had been dropped; "
        "record the table with errors(X, full=True)."
    )
