"""Cost estimates of predictions: the maximum number of evaluations, and their measured time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from ..pruners.base import NoPruning
from ..samplers.stratified import StratifiedSampler
from ..utils.validation import check_positive_integer
from .predicting import Predictor

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


def estimate_cost(predictor: Predictor, n_images: int) -> Cost:
    """Estimate the cost of predicting ``n_images`` images.

    The time is measured on a short race over a grey image, after one run to warm up.

    Raises
    ------
    InputValueError
        If ``n_images`` is not a positive integer.
    """
    evaluations = check_positive_integer("n_images", n_images) * predictor.max_evaluations()
    n_prompts = len(predictor.condition)
    rows = _PROBE_ROWS
    if isinstance(predictor.batch_size, int):
        rows = max(rows, predictor.batch_size)
    n_draws = -(-rows // n_prompts)
    probe = replace(predictor, pruner=NoPruning(n_draws), sampler=StratifiedSampler(), verbose=0)
    for _ in range(2):
        start = time.perf_counter()
        with probe.race(predictor.inputs.grey_image()) as (results, *_):
            list(results)
        seconds = time.perf_counter() - start
    return Cost(evaluations, seconds / (n_draws * n_prompts) * evaluations)
