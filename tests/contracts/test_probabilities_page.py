"""The arithmetic of the page on probabilities without labels."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import StratifiedSampler

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def probabilities(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module("probabilities")
    for name in set(sys.modules) - before:  # their names are too plain to stay
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def test_kinds_of_probabilities_are_compared_on_the_same_races(probabilities):
    X, y = load_iris(return_X_y=True)
    clf = DiffusionClassifier(
        GaussianBackend(),
        sampler=StratifiedSampler(),
        pruner=NoPruning(30),
        random_state=0,
        calibrator=None,
    ).fit(X, y)
    table = clf.errors(X)
    order = np.argsort(np.arange(150) % 50, kind="stable")  # classes in turn, as in a lesson
    lesson = probabilities.Lesson(table[order[:60]], np.arange(60) % 3, 1.0)
    assert lesson.recognised > 0.9
    case = probabilities.Case(table[order[60:]], y[order[60:]], lesson)
    found = probabilities.measure(case)
    none, default, best = (
        found[f"race, {kind}"] for kind in ("T = 1", "natural (default)", "best T")
    )
    assert best["log_loss"][0] < none["log_loss"][0]
    assert best["accuracy"] == none["accuracy"] == default["accuracy"]
    assert default["change"] == [0, 0, 0]
    assert found["all draws, natural"]["evaluations"][0] == 90
    assert found["self-taught"]["evaluations"][0] < default["evaluations"][0] < 90
    text = "\n".join(probabilities.page({"embedded model": case}, {"embedded model": found}))
    assert "| embedded model | 90 × 30 | 60 × 30 | 1 |" in text
    untaught = probabilities.measure(case._replace(lesson=None))
    assert set(found) - set(untaught) == {"self-taught", "self-taught race, best T"}
