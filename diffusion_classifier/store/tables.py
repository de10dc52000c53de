"""An error table of what a store holds."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import InputValueError
from ..noise.schedule import NoiseSchedule
from ..records.setup import RecordSetup
from ..records.table import ErrorTable
from ..scoring.class_losses import Scoring
from .keys import Content, TapeRecord
from .memory import Memory

INCOMPLETE = "the store lacks its errors of a prompt"


def as_table(
    memory: Memory, n_images: int, network: Content, prompts: Sequence[Content], tape: TapeRecord
) -> ErrorTable:
    """Make a table of the errors that a store has on the first draws of a tape.

    Raises
    ------
    InputValueError
        If no image has errors of every prompt.
    """
    errors = np.full((n_images, len(prompts), len(tape.keys)), np.nan, np.float32)
    for image in range(n_images):
        known = memory.known(image).numpy()
        errors = errors.astype(np.promote_types(errors.dtype, known.dtype), copy=False)
        memory.release(image)
        is_first = np.isnan(known).cumsum(1) == 0  # up to the first gap
        errors[image, :, : known.shape[1]] = np.where(is_first, known, np.nan)
    n_draws = (~np.isnan(errors)).sum(2)
    is_complete = (n_draws > 0).all(1)
    errors[~is_complete], n_draws[~is_complete] = np.nan, 0
    if not is_complete.any():
        raise InputValueError(
            f"no image of {n_images} has errors of all {len(prompts)} prompts; name fewer with "
            "prompts=[...]."
        )
    most = int(n_draws.max())
    active = n_draws == n_draws.max(1, keepdims=True)
    active[~is_complete] = False
    return ErrorTable(
        errors=errors[:, :, :most],
        active=active,
        timesteps=tape.timesteps[:most],
        density=tape.density[:most],
        round_of=tape.round_of[:most],
        antithetic=tape.antithetic[:most],
        setup=_setup(network, prompts, tape.seed),
        skipped=tuple((int(image), INCOMPLETE) for image in np.flatnonzero(~is_complete)),
    )


def _setup(network: Content, prompts: Sequence[Content], seed: int) -> RecordSetup:
    keyed, made_by = (json.loads(line) for line in network.text.split("\n"))
    schedule = NoiseSchedule(keyed["alpha"], keyed["sigma"])
    texts = tuple(prompt.text for prompt in prompts)
    n = len(texts)
    return RecordSetup(
        scoring=Scoring(
            torch.ones(schedule.n_timesteps, dtype=torch.float64),
            torch.full((n,), -float(np.log(n)), dtype=torch.float64),
            torch.arange(n),
        ),
        schedule=schedule,
        prediction_type=keyed["prediction_type"],
        loss=made_by["loss"],
        classes=np.array(texts),
        prompts=texts,
        seed=seed,
        made_by=made_by,
    )
