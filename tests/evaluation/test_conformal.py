"""Sets of labels by MAPIE hold the true one as often as they promise."""

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.pruners import NoPruning

MEANS = np.array([[-1.0, 0], [1.0, 0], [0, 1.0]])
NAMES = np.array(["ant", "bee", "cat"])


@pytest.mark.parametrize("level", [0.7, 0.9])
def test_sets_cover_also_where_probabilities_are_not_calibrated(level):
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=500)
    X = MEANS[y] + rng.normal(size=(500, 2))
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), calibrator=0.2, random_state=0)
    clf.fit(MEANS, NAMES)
    conformal = SplitConformalClassifier(clf, confidence_level=level, prefit=True)
    conformal.conformalize(X[:200], NAMES[y[:200]])
    _, sets = conformal.predict_set(X[200:])
    coverage = sets[np.arange(300), y[200:], 0].mean()
    # variance of the coverage: of the quantile of 200, and of the mean of 300
    deviation = np.sqrt(level * (1 - level) * (1 / 200 + 1 / 300))
    assert level - 3 * deviation < coverage < level + 3 * deviation
    assert clf.score(X[200:], NAMES[y[200:]]) < 0.75  # the label alone is right less often
