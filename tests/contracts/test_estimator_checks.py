"""scikit-learn's own suite, with no check expected to fail."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.pruners import NoPruning


@parametrize_with_checks([DiffusionClassifier(backend=GaussianBackend())])
def test_scikit_learns_contract(estimator, check):
    check(estimator)


def test_a_table_is_classified_by_the_gaussians_learned_from_it():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + [4, 0]])
    y = np.repeat(["left", "right"], 50)
    clf = DiffusionClassifier(GaussianBackend(), weighting="likelihood", random_state=0)
    assert clf.fit(X, y).score(X, y) >= 0.96
    assert clf.n_features_in_ == 2


def test_a_data_frame_is_learned_from_without_complaint(recwarn):
    X, y = load_iris(as_frame=True, return_X_y=True)
    clf = DiffusionClassifier(
        GaussianBackend(), pruner=NoPruning(8), calibrator="temperature", weighting="fitted"
    )
    X = pd.DataFrame(np.broadcast_to(X, X.shape), columns=X.columns)  # read only
    torch.set_warn_always(True)
    try:
        assert clf.fit(X, y).score(X, y) > 0.8
    finally:
        torch.set_warn_always(False)
    assert clf.feature_names_in_.tolist() == X.columns.tolist()
    assert not recwarn.list
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        clf.predict(X.to_numpy()[:2])
