"""Check that recorded errors can be combined with those that a classifier will compute."""

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
    """Return recorded errors in the order of a classifier's prompts.

    Parameters
    ----------
    table : ErrorTable
    asked : RecordSetup
        The classifier's setup.
    n_images : int
        Number of images passed to the classifier.
    tape : DrawTape
        The classifier's draws.
    class_by_position : bool
        Whether the network identifies a class by its position in ``classes_``.

    Returns
    -------
    Tensor of shape (N, P, J)
        Errors of the first N images; NaN for prompts that were not recorded.

    Raises
    ------
    InputTypeError
        If ``table`` is not an ErrorTable.
    InputValueError
        If the table holds more images than X, or the draws, the network, the image format or the
        loss differ, or, with ``class_by_position``, the classes.
    """
    if not isinstance(table, ErrorTable):
        raise InputTypeError(
            f"table is of type {type(table).__name__}; pass the ErrorTable that errors(X) returned."
        )
    if len(table) > n_images:
        raise InputValueError(
            f"the table holds {len(table)} images, but X holds {n_images}; pass the images that "
            "the table was recorded on, in the same order. More images may follow them."
        )
    if table.seed != asked.seed:
        raise InputValueError(
            f"the table's draws have seed {table.seed}, but this classifier's have {asked.seed}; "
            "set random_state to an integer, so that every fit takes the same draws, and record "
            "the table again."
        )
    table.setup.check_network(asked)
    _check_draws(table, tape)
    if class_by_position and not np.array_equal(table.classes, asked.classes):
        raise InputValueError(
            "this backend identifies classes by their position, so the table must have the same "
            f"classes: it has {table.classes.tolist()[:5]}, this classifier has "
            f"{asked.classes.tolist()[:5]}."
        )
    recorded = {prompt: p for p, prompt in enumerate(table.prompts)}
    n_draws = table.errors.shape[2]
    found = torch.as_tensor(table.errors)
    errors = found.new_full((len(table), len(asked.prompts), n_draws), torch.nan)
    for p, prompt in enumerate(asked.prompts):
        if prompt in recorded:
            errors[:, p] = found[:, recorded[prompt]]
    return errors


def _check_draws(table: ErrorTable, tape: DrawTape) -> None:
    """Raise if the table's timesteps or densities differ from the sampler's."""
    number, n_draws = 0, len(table.timesteps)
    while tape.n_draws < n_draws and tape[number] is not None:
        number += 1
    n = min(n_draws, tape.n_draws)
    for name in ("timesteps", "density"):
        if not np.array_equal(getattr(table, name)[:n], getattr(tape, name)[:n].numpy()):
            raise InputValueError(
                f"the table's {name} differ from those of this classifier's sampler; use the "
                "sampler that the table was recorded with."
            )
