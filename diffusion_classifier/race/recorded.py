"""Error source that looks up recorded errors and lets the network compute the rest.

Noise is keyed by draw and shared by classes. Errors of labels or draws that are added later thus
use the same noise as the recorded ones, and together they equal the result of one longer run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputValueError
from ..noise.draws import Draws
from .source import Answer, ErrorSource, KnownErrors, Request

_ROWS_PER_STEP = 2**18  # limits the memory of a race without a network


class RecordedErrors(ErrorSource):
    """Error source that looks up recorded errors and gets missing ones from another source.

    Parameters
    ----------
    errors : Tensor of shape (N, P, J) or KnownErrors
        Recorded errors of the first N images and J draws; NaN where missing. For each image and
        prompt, only the errors before the first NaN of a request are used.
    source : ErrorSource, optional
        Computes missing errors. Without it, a missing error raises.
    on_recorded : callable, optional
        Called after every step with the number of errors that were looked up.
    """

    def __init__(
        self,
        errors: Tensor | KnownErrors,
        source: ErrorSource | None = None,
        on_recorded: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._known = _InTensor(errors) if isinstance(errors, Tensor) else errors
        self.n_prompts = self._known.n_prompts
        self._source = source
        self._on_recorded = on_recorded
        self._tails: dict[tuple[Draws, int], Draws] = {}

    @property
    def steps_at_once(self) -> int:
        return 1 if self._source is None else self._source.steps_at_once

    @property
    def rows_wanted(self) -> int:
        return _ROWS_PER_STEP if self._source is None else self._source.rows_wanted

    @property
    def batch_rows(self) -> int:
        return 1 if self._source is None else self._source.batch_rows

    @property
    def few_rows(self) -> int:
        return 0 if self._source is None else self._source.few_rows

    def release(self, image: int) -> None:
        self._known.release(image)
        if self._source is not None:
            self._source.release(image)

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Look up or compute the errors [A, J] of each request, on the CPU; see :meth:`begin`."""
        return self.begin(requests)()

    def begin(self, requests: Sequence[Request]) -> Answer:
        """Look up the errors of a step, and begin to compute those that are missing.

        Raises
        ------
        InputValueError
            If an error was not recorded and there is no other source.
        """
        found: list[Tensor] = []
        missing: list[Request] = []
        places: list[tuple[int, Tensor, int]] = []  # number of the answer, rows, first column
        n_recorded = 0
        for number, request in enumerate(requests):
            answer = self._look_up(request)
            n_complete = int(answer.isnan().any(0).logical_not().cumprod(0).sum())
            if n_complete >= request.n_draws - request.n_ahead:  # nothing that is needed is missing
                found.append(answer[:, :n_complete])
                n_recorded += found[-1].numel()
                continue
            found.append(answer)
            n_known = (answer.isnan().cumsum(1) == 0).sum(1)
            n_recorded += int(n_known.sum())
            if self._source is None:
                raise _not_recorded(request, n_known)
            for n in n_known.unique().tolist():
                if n < request.n_draws:
                    rows = (n_known == n).nonzero()[:, 0]
                    rounds = self._after(request.rounds, n)
                    start = request.start + n
                    missing.append(Request(request.image, request.prompts[rows], rounds, start))
                    places.append((number, rows, n))
        self._on_recorded(n_recorded)
        computed = self._source.begin(missing) if self._source and missing else list

        def completed() -> list[Tensor]:
            for (number, rows, n), errors in zip(places, computed(), strict=True):
                # the errors of exact backends are float64
                dtype = torch.promote_types(found[number].dtype, errors.dtype)
                found[number] = found[number].to(dtype)
                found[number][rows, n:] = errors.to(dtype)
            return found

        return completed

    def _look_up(self, request: Request) -> Tensor:
        """Return a request's errors [A, J], NaN where not recorded."""
        stop = request.start + request.n_draws
        known = self._known.known(request.image)[request.prompts, request.start : stop]
        if known.shape[1] == request.n_draws:
            return known
        answer = known.new_full((len(known), request.n_draws), torch.nan)
        answer[:, : known.shape[1]] = known
        return answer

    def _after(self, rounds: Sequence[Draws], n_draws: int) -> list[Draws]:
        """Return the rounds without their first ``n_draws`` draws."""
        rest = []
        for draws in rounds:
            n = min(n_draws, len(draws))
            n_draws -= n
            if n < len(draws):
                rest.append(self._tail(draws, n) if n else draws)
        return rest

    def _tail(self, draws: Draws, n: int) -> Draws:
        """Return a round without its first n draws; one object, which is a key of noise caches."""
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


class _InTensor:
    """Recorded errors [N, P, J] of the first N images."""

    def __init__(self, errors: Tensor) -> None:
        self.n_prompts = errors.shape[1]
        self._errors = errors

    def known(self, image: int) -> Tensor:
        if image < len(self._errors):
            return self._errors[image]
        return self._errors.new_empty((self.n_prompts, 0))

    def renew(self) -> None:
        """Do nothing: the errors do not change."""

    def release(self, image: int) -> None:
        """Do nothing: the errors belong to the caller."""


def _not_recorded(request: Request, n_known: Tensor) -> InputValueError:
    """Make the exception for the first missing draw."""
    row = int((n_known < request.n_draws).nonzero()[0])
    return InputValueError(
        f"the error of image {request.image}, prompt {int(request.prompts[row])}, draw "
        f"{request.start + int(n_known[row])} was not recorded, because that prompt had been "
        "dropped; record the table with errors(X, full=True)."
    )
