"""The fields of a new error table: from the results of a race, or from other tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputValueError
from ..race.source import Result
from ..race.tape import DrawTape
from ..scoring.candidates import Candidates
from .header import PER_DRAW

NOT_RACED = "its race did not end"


def collect(
    results: Iterable[Result], tape: DrawTape, skipped: Iterable[tuple[int, str]]
) -> dict[str, Any]:
    """Return the fields of the table of a race, without its setup.

    Raises
    ------
    InputValueError
        If there are no results.
    """
    found = {result.image: result for result in results}
    reasons = dict(skipped)
    if not found:
        raise InputValueError("there are no images to race.")
    n_images = max(*found, *reasons, 0) + 1
    reasons |= {i: NOT_RACED for i in range(n_images) if i not in found and i not in reasons}
    # an image of one candidate takes no draws, but a table has at least one
    most = max(1, *(result.errors.shape[1] for result in found.values()))
    first = next(iter(found.values())).errors
    errors = np.full((n_images, len(first), most), np.nan, first.numpy().dtype)
    active = np.zeros((n_images, len(first)), bool)
    for image, result in found.items():
        errors[image, :, : result.errors.shape[1]] = result.errors.numpy()
        active[image] = result.active.numpy()
    round_of = tape.round_of[:most].tolist()
    antithetic = [rounds.antithetic for n in round_of if (rounds := tape[n]) is not None]
    return {
        "errors": errors,
        "active": active,
        "timesteps": tape.timesteps[:most].numpy(),
        "density": tape.density[:most].numpy(),
        "round_of": np.array(round_of),
        "antithetic": np.array(antithetic),
        "skipped": tuple(sorted(reasons.items())),
    }


def join(tables: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of the table of all images of some tables, without its setup.

    Parameters
    ----------
    tables : sequence of ErrorTable
        At least one.

    Raises
    ------
    InputValueError
        If their setups or draws differ.
    """
    first = tables[0]
    longest = max(tables, key=lambda table: len(table.timesteps))
    n_draws = len(longest.timesteps)
    for number, table in enumerate(tables):
        name = first.setup.difference(table.setup)
        if name is None:
            names = (name for name in PER_DRAW if not _is_start(table, longest, name))
            name = next(names, None)
        if name is None and not _alike(first.candidates, table.candidates):
            name = "candidates"
        if name is not None:
            raise InputValueError(
                f"table {number} differs from the others in {name}; concatenate tables that one "
                "classifier recorded with an integer random_state, or with the same seed, network, "
                "classes, prompts and strategies."
            )
    starts = np.cumsum([0, *map(len, tables)]).tolist()
    skipped = tuple(
        (start + image, reason)
        for start, table in zip(starts, tables, strict=False)
        for image, reason in table.skipped
    )
    return {
        "errors": np.concatenate([_padded(table.errors, n_draws) for table in tables]),
        "active": np.concatenate([table.active for table in tables]),
        **{name: getattr(longest, name) for name in PER_DRAW},
        "skipped": skipped,
        "candidates": None
        if first.candidates is None
        else Candidates.concatenate([table.candidates for table in tables]),
    }


def _alike(one: Candidates | None, other: Candidates | None) -> bool:
    """Whether both are candidates of one proposer, or both are none."""
    return other is None if one is None else one.like(other)


def _is_start(table: Any, longest: Any, name: str) -> bool:
    """Whether a table's draws are the first ones of another table, in one field."""
    values = getattr(table, name)
    return np.array_equal(values, getattr(longest, name)[: len(values)])


def _padded(errors: NDArray[np.float32], n_draws: int) -> NDArray[np.float32]:
    """Append draws without errors."""
    room = n_draws - errors.shape[2]
    return np.pad(errors, ((0, 0), (0, 0), (0, room)), constant_values=np.nan)
