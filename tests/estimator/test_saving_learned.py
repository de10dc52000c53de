"""What ``fit(X, y)`` learned is kept, and read back to the bit."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.pruners import RacingPruner

X, Y = load_iris(return_X_y=True)


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "fitted"},
        {"sampler": "importance"},
        {"pruner": "threshold"},
        {"pruner": RacingPruner(learn_profile=True)},
        {"calibrator": "temperature", "weighting": "fitted"},
        {"calibrator": "temperature-draws"},
    ],
    ids=str,
)
def test_learned_strategies_survive(options, tmp_path):
    clf = DiffusionClassifier(GaussianBackend(), random_state=0, n_fit_images=30, **options)
    clf.fit(X, Y).save(tmp_path / "iris")
    loaded = DiffusionClassifier.load(tmp_path / "iris")
    np.testing.assert_array_equal(loaded.predict_proba(X[::10]), clf.predict_proba(X[::10]))
    assert clf.score(X, Y) > 0.9
