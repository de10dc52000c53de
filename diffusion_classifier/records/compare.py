"""Whether errors recorded earlier can stand beside those that a classifier will compute."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError
from ..race.tape import DrawTape
from .setup import RecordSetup
from .table import ErrorTable


def comparable_errors(
    table: ErrorTable,
    asked: RecordSetup,
    *,
    n_images: int,
    tape: DrawTape,
    class_by_position: bool,
) -> Tensor:
    """Recorded errors in the order of a classifier's prompts.

    Parameters
    ----------
    table : ErrorTable
    asked : RecordSetup
        That of the classifier.
    n_images : int
        Images that the classifier is given.
    tape : DrawTape
        Draws that the classifier takes.
    class_by_position : bool
        Whether its network knows classes by their position among those of ``fit``.

    Returns
    -------
    Tensor of shape (N, P, J)
        NaN for prompts that were not recorded.

    Raises
    ------
    InputTypeError
        If ``table`` is not an ErrorTable.
    InputValueError
        If the table is of another number of images, other draws, another network or loss, or
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
    if table.seed != asked.seed:
        raise InputValueError(
            f"the table's draws have seed {table.seed}, this classifier's {asked.seed}: set "
            "random_state to an integer, so that every fit takes the same draws, and record the "
            "table again."
        )
    table.setup.check_network(asked)
    _check_draws(table, tape)
    if class_by_position and not np.array_equal(table.classes, asked.classes):
        raise InputValueError(
            "this backend knows classes by their position, so errors of other classes cannot be "
            f"added: the table has {table.classes.tolist()[:5]}, this classifier "
            f"{asked.classes.tolist()[:5]}."
        )
    recorded = {prompt: p for p, prompt in enumerate(table.prompts)}
    n_draws = table.errors.shape[2]
    errors = torch.full((n_images, len(asked.prompts), n_draws), torch.nan)
    for p, prompt in enumerate(asked.prompts):
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
