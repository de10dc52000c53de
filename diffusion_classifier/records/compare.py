"""Whether errors recorded earlier can stand beside those of this classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError
from ..race.tape import DrawTape
from ..utils.provenance import check_made_by
from .table import ErrorTable


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
        raise InputTypeError(
            f"table is of type {type(table).__name__}; give what errors(X) returned."
        )
    if len(table) != n_images:
        raise InputValueError(
            f"the table holds {len(table)} images and X {n_images}; pass the images that the "
            "table was recorded on, in the same order."
        )
    if table.seed != seed:
        raise InputValueError(
            f"the table's draws have seed {table.seed}, this classifier's {seed}: set random_state "
            "to an integer, so that every fit takes the same draws, and record the table again."
        )
    if table.made_by is not None:
        check_made_by("the table was", table.made_by, made_by)
    _check_draws(table, tape)
    if class_by_position and not np.array_equal(table.classes, classes):
        raise InputValueError(
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
            raise InputValueError(
                f"the table's {name} are not those that this classifier's sampler takes; use the "
                "sampler that it was recorded with."
            )
