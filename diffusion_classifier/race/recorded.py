"""Errors that an earlier table holds, and the network for the rest.

Noise is keyed by draw and shared by classes. The errors of labels added later, or of draws taken
later, are therefore on the same noise as those recorded before, and stand beside them as if all had
been computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..noise.draws import Draws
from .source import ErrorSource, Request


class RecordedErrors:
    """An error source that asks another one only for what was not recorded.

    Parameters
    ----------
    errors : Tensor of shape (N, P, J)
        Recorded errors of the first J draws; NaN where there is none. Of each image and prompt,
        those before its first NaN are used.
    source : ErrorSource
    on_recorded : callable, optional
        Called with the number of errors that were looked up after every step.
    """

    def __init__(
        self,
        errors: Tensor,
        source: ErrorSource,
        on_recorded: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.n_prompts = source.n_prompts
        self._errors = errors
        self._source = source
        self._on_recorded = on_recorded
        self._taken: dict[int, int] = {}  # draws of each image in flight
        self._tails: dict[tuple[Draws, int], Draws] = {}

    @property
    def rows_wanted(self) -> int:
        return self._source.rows_wanted

    def release(self, image: int) -> None:
        self._source.release(image)
        self._taken.pop(image, None)

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Errors [A, J] of each request, on the CPU."""
        found: list[Tensor] = []
        missing: list[Request] = []
        places: list[tuple[Tensor, Tensor, int]] = []  # answer, its rows, its first column
        n_recorded = 0
        for request in requests:
            start = self._taken.get(request.image, 0)
            self._taken[request.image] = start + request.n_draws
            known = self._errors[request.image, request.prompts, start : start + request.n_draws]
            answer = known.new_full((len(known), request.n_draws), torch.nan)
            answer[:, : known.shape[1]] = known
            found.append(answer)
            n_known = (answer.isnan().cumsum(1) == 0).sum(1)
            n_recorded += int(n_known.sum())
            for n in n_known.unique().tolist():
                if n < request.n_draws:
                    rows = (n_known == n).nonzero()[:, 0]
                    rounds = self._after(request.rounds, n)
                    missing.append(Request(request.image, request.prompts[rows], rounds))
                    places.append((answer, rows, n))
        self._on_recorded(n_recorded)
        computed = self._source.evaluate(missing) if missing else []
        for (answer, rows, n), errors in zip(places, computed, strict=True):
            answer[rows, n:] = errors
        return found

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
