"""Errors that an earlier table holds, and the network for the rest.

Noise is keyed by draw and shared by classes. The errors of labels added later, or of draws taken
later, are therefore on the same noise as those recorded before, and stand beside them as if all had
been computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .error_table import ErrorTable
from .latents import check_made_by
from .race import ErrorSource, Request
from .samplers import Draws
from .tape import DrawTape


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


def comparable_errors(
    table: ErrorTable,
    *,
    n_images: int,
    classes: np.ndarray,
    prompts: Sequence[str],
    class_by_position: bool,
    seed: int,
    tape: DrawTape,
    made_by: Mapping[str, Any],
) -> Tensor:
    """Recorded errors [N, P, J] in the order of ``prompts``; NaN for prompts not recorded.

    Raises
    ------
    TypeError
        If ``table`` is none.
    ValueError
        If the table is of other images by their number, other draws, another network or loss, or
        other classes of a network that knows classes by their position.
    """
    if not isinstance(table, ErrorTable):
        raise TypeError(f"table is of type {type(table).__name__}; give what errors(X) returned.")
    if len(table) != n_images:
        raise ValueError(
            f"the table holds {len(table)} images and X {n_images}; pass the images that the "
            "table was recorded on, in the same order."
        )
    if table.seed != seed:
        raise ValueError(
            f"the table's draws have seed {table.seed}, this classifier's {seed}: set random_state "
            "to an integer, so that every fit takes the same draws, and record the table again."
        )
    if table.made_by is not None:
        check_made_by("the table was", table.made_by, made_by)
    _check_draws(table, tape)
    if class_by_position and not np.array_equal(table.classes, classes):
        raise ValueError(
            "this backend knows classes by their position, so errors of other classes cannot be "
            f"added: the table has {table.classes.tolist()[:5]}, this classifier "
            f"{classes.tolist()[:5]}."
        )
    recorded = {prompt: p for p, prompt in enumerate(table.prompts)}
    n_draws = table.errors.shape[2]
    errors = torch.full((n_images, len(prompts), n_draws), torch.nan)
    for p, prompt in enumerate(prompts):
        if prompt in recorded:
            errors[:, p] = torch.as_tensor(table.errors[:, recorded[prompt]])
    return errors


def _check_draws(table: ErrorTable, tape: DrawTape) -> None:
    """Refuse a table whose timesteps are not those that the sampler takes."""
    number, n_draws = 0, len(table.timesteps)
    while tape.n_draws < n_draws and tape[number] is not None:
        number += 1
    n = min(n_draws, tape.n_draws)
    for name in ("timesteps", "density"):
        if not np.array_equal(getattr(table, name)[:n], getattr(tape, name)[:n].numpy()):
            raise ValueError(
                f"the table's {name} are not those that this classifier's sampler takes; use the "
                "sampler that it was recorded with."
            )
