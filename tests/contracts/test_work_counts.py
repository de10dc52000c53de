"""Work of fixed races in counts, not seconds: no more than when the numbers were written down.

A change that lowers a count may lower the number here too. One that raises it needs a reason.
"""

import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import RacingPruner, StagedPruner

SYNCHRONISATIONS = ("aten._local_scalar_dense", "aten.is_nonzero", "aten.nonzero", "aten.equal")


class CountedOperations(TorchDispatchMode):
    """Counts operations, and those at which a host would wait for its device."""

    def __init__(self):
        super().__init__()
        self.n_operations = self.n_waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n_operations += 1
        self.n_waits += str(func).startswith(SYNCHRONISATIONS)
        return func(*args, **(kwargs or {}))


def counts(n_classes, n_images, pruner):
    """Per image: rows, network calls, tensor operations, waits and Python-level calls."""
    outputs = torch.linspace(0, 1, n_classes * 4).view(n_classes, 4, 1, 1).sin()
    n_rows = []

    def network(z, t, condition):
        n_rows.append(len(z))
        return outputs[condition]

    backend = FunctionBackend(
        network, schedule=NoiseSchedule.flow(100), input_shape=(4, 1, 1), input_kind="array"
    )
    X = np.random.default_rng(0).normal(size=(n_images, 4)).astype(np.float32)
    classifier = DiffusionClassifier(backend, pruner=pruner, random_state=0, verbose=0)
    classifier.fit(None, list(range(n_classes))).predict(X)  # what is made once
    n_rows.clear()
    operations = CountedOperations()
    with operations:
        classifier.predict(X)
    n_python = 0

    def profile(frame, event, argument):
        nonlocal n_python
        n_python += event == "call"

    found = [sum(n_rows), len(n_rows), operations.n_operations, operations.n_waits]
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        classifier.predict(X)
    finally:
        sys.setprofile(before)
    return [n / n_images for n in (*found, n_python)]


CASES = {
    "a race of few images": (10, 2, RacingPruner(max_draws=60)),
    "a race of many images": (10, 30, RacingPruner(max_draws=60)),
    "a race of two classes": (2, 8, RacingPruner(max_draws=60)),
    "a race of many classes": (300, 1, RacingPruner(max_draws=40)),
    "stages": (10, 20, StagedPruner((8, 20), (5, 2), max_draws=60)),
}
# Rows, network calls, tensor operations, waits and Python-level calls per image. The last three are
# rounded up by a tenth, because they also count what other versions of the libraries do.
# Waits count questions about tensors in main memory, too, which wait for nothing.
RECORDED = {
    "a race of few images": (352, 5, 1480, 59, 4920),
    "a race of many images": (334, 1.14, 680, 52, 2400),
    "a race of two classes": (72, 0.875, 390, 19, 1370),
    "a race of many classes": (8444, 29, 2920, 87, 8600),
    "stages": (220, 0.55, 290, 25, 1260),
}


@pytest.mark.parametrize("name", CASES)
def test_a_race_does_no_more_work_than_when_it_was_recorded(name):
    for found, most in zip(counts(*CASES[name]), RECORDED[name], strict=True):
        assert 0.5 * most < found <= most
