"""Cost estimates of predictions: the maximum number of evaluations, and their measured time.

Recorded errors are not paid again. Each recorded image races on them as far as they go. If the race
ends, it costs nothing. Otherwise it costs at most the maximum, less the errors that it found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..pruners.base import NoPruning, Pruner
from ..race.loop import run_race
from ..race.recorded import RecordedErrors
from ..race.source import ErrorSource, Request, Start
from ..records.compare import comparable_errors
from ..records.table import ErrorTable
from ..samplers.stratified import StratifiedSampler
from ..utils.validation import check_positive_integer
from .predicting import ModelOf, Predictor

_PROBE_ROWS = 64


class Cost(NamedTuple):
    """Upper bound on the cost of predictions.

    Attributes
    ----------
    evaluations : int
        Rows through the network.
    seconds : float
        Time of these evaluations on this machine.
    """

    evaluations: int
    seconds: float


def estimate_cost(predictor: Predictor, n_images: int, table: ErrorTable | None = None) -> Cost:
    """Estimate the cost of predicting ``n_images`` images, if a table holds some of the errors.

    The time is measured on a short race over a grey image per device, after one run to warm up.

    Raises
    ------
    InputValueError
        If ``n_images`` is not a positive integer, or the table cannot be used.
    """
    n_images = check_positive_integer("n_images", n_images)
    if table is None:
        evaluations = n_images * predictor.max_evaluations()
    else:
        evaluations = _missing_evaluations(predictor, n_images, table)
    if not evaluations:
        return Cost(0, 0.0)
    n_prompts = len(predictor.condition)
    rows = _PROBE_ROWS
    if isinstance(predictor.batch_size, int):
        rows = max(rows, predictor.batch_size)
    n_draws = -(-rows // n_prompts)
    probe = replace(
        predictor,
        pruner=NoPruning(n_draws),
        sampler=StratifiedSampler(),
        verbose=0,
        shortlist=None,
        memory=None,  # a grey image is not worth keeping, and looking it up takes no time
    )
    images = np.repeat(predictor.inputs.grey_image(), max(1, len(predictor.devices)), axis=0)
    for _ in range(2):
        start = time.perf_counter()
        with probe.race(images) as (results, *_):
            list(results)
        seconds = time.perf_counter() - start
    return Cost(evaluations, seconds / (len(images) * n_draws * n_prompts) * evaluations)


def _missing_evaluations(predictor: Predictor, n_images: int, table: ErrorTable) -> int:
    """Return the maximum number of evaluations of images whose first ones were recorded."""
    setup, tape = predictor.setup, predictor.tape()
    most, proposals, start = predictor.max_evaluations(tape), 0, None
    if predictor.shortlist is not None:
        if table.candidates is None or not np.array_equal(table.classes, setup.classes):
            return n_images * most
        proposals = predictor.shortlist.max_evaluations(ModelOf(predictor))
        start = Start.among(table.candidates, setup.scoring)
    recorded = comparable_errors(
        table,
        setup,
        n_images=n_images,
        tape=tape,
        class_by_position=predictor.inputs.backend.class_by_position,
    )
    unknown = _Unknown(recorded.shape[1])
    source, pruner = RecordedErrors(recorded, unknown), _UntilUnknown(predictor.pruner)
    total = (n_images - len(table)) * most + len(table) * proposals
    for result in run_race(source, tape, pruner, setup.scoring, range(len(table)), start):
        if result.image in unknown.images:
            total += most - proposals - result.n_evaluations
    return total


class _Unknown(ErrorSource):
    """Source of errors that were not recorded: it answers NaN, and notes the images.

    Parameters
    ----------
    n_prompts : int
    """

    rows_wanted, batch_rows, few_rows = 2**18, 1, 0

    def __init__(self, n_prompts: int) -> None:
        self.n_prompts = n_prompts
        self.images: set[int] = set()

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        self.images.update(request.image for request in requests)
        return [torch.full((len(r.prompts), r.n_draws), torch.nan) for r in requests]

    def release(self, image: int) -> None:
        """Do nothing."""


class _UntilUnknown(Pruner):
    """Prune as another pruner does, and end a race whose errors are not all known.

    Parameters
    ----------
    pruner : Pruner
    """

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self.max_draws = pruner.max_draws

    def next_look(self, n_draws: int) -> int:
        return self.pruner.next_look(n_draws)

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        known = ~(contributions.isnan().any(2) & active).any(1)
        kept = active & (active.cumsum(1) == 1)  # a single one: the race is decided
        if bool(known.any()):
            kept[known] = self.pruner.select(
                contributions[known], active[known], round_of, class_of
            )
        return kept
