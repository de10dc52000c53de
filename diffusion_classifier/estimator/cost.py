"""What a prediction costs: evaluations before they are spent, and their time from a probe."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from ..pruners.base import NoPruning, Pruner
from ..race.tape import DrawTape
from ..samplers.stratified import StratifiedSampler
from ..scoring.class_losses import Scoring
from ..utils.validation import check_positive_integer

_PROBE_ROWS = 64
_PROBE_SIDE = 64  # pixels, for models that take images as they come


class CostMixin:
    """Asks what predictions cost, of an estimator that knows how to race."""

    def estimate_cost(self, n_images: int) -> Bunch:
        """What predicting ``n_images`` images would cost at most, from one probe.

        Parameters
        ----------
        n_images : int
            How many images.

        Returns
        -------
        sklearn.utils.Bunch
            ``evaluations``: most rows through the network; ``seconds``: their time, from two
            timed batches of a grey image (the first of which warms up).

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        ValueError
            If ``n_images`` is not a positive integer.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> from diffusion_classifier.pruners import StagedPruner
        >>> clf = DiffusionClassifier(pruner=StagedPruner(n_draws=(8,), keep=(2,), max_draws=16))
        >>> clf.fit(None, ["three", "five", "eight"]).estimate_cost(1000).evaluations
        40000
        """
        check_is_fitted(self)
        n_images = check_positive_integer("n_images", n_images)
        clf: Any = self
        evaluations = n_images * max_evaluations(
            clf._take_draws(clf.pruner_), clf.pruner_, clf._scoring
        )
        n_prompts = len(clf._condition)
        rows = _PROBE_ROWS if clf.batch_size == "auto" else max(_PROBE_ROWS, clf.batch_size)
        probe = NoPruning(-(-rows // n_prompts))
        for _ in range(2):
            start = time.perf_counter()
            race = clf._race(clf._grey_image(), probe, verbose=0, sampler=StratifiedSampler())
            with race as (results, _, _):
                list(results)
            seconds = time.perf_counter() - start
        per_evaluation = seconds / (probe.max_draws * n_prompts)
        return Bunch(evaluations=evaluations, seconds=per_evaluation * evaluations)

    def _grey_image(self) -> Any:
        clf: Any = self
        if clf.backend_.input_kind == "array":
            return np.zeros((1, clf.n_features_in_))
        height, width = clf._picture_format(clf.backend_)[0] or (_PROBE_SIDE, _PROBE_SIDE)
        return np.full((1, height, width, 3), 128, np.uint8)


def max_evaluations(tape: DrawTape, pruner: Pruner, scoring: Scoring) -> int:
    """Most evaluations of one image: prompts that may be left, round after round.

    Parameters
    ----------
    tape : DrawTape
        The rounds that will be taken; cuts are made at their ends only.
    pruner : Pruner
        Says how many classes it leaves at most.
    scoring : Scoring
        Says how many prompts the classes have; the largest are taken to be left.

    Returns
    -------
    int
    """
    most_prompts = scoring.class_of.bincount().sort(descending=True).values.cumsum(0)
    total, n_draws, number = 0, 0, 0
    n_classes = scoring.n_classes
    while (draws := tape[number]) is not None and n_classes > 1:
        total += len(draws) * int(most_prompts[n_classes - 1])
        n_draws += len(draws)
        n_classes = pruner.max_classes(n_draws, n_classes)
        number += 1
    return total
