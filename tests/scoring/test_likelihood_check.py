"""Whether likelihood weights rest on a network's inaccuracy is seen without labels."""

import warnings

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.backends.exact import GaussianBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.scoring import Scoring
from diffusion_classifier.scoring.likelihood_check import LikelihoodCheck
from tests.support.gaussians import X_BLOBS, X_IRIS, Y_BLOBS, Y_IRIS

SIDE, DISTANCE = 16, 3.0  # dimensions, and the distance of the two class means
DRAWS, INACCURATE = 200, 0.6


def make_backend(inaccuracy):
    """The exact predictor of N(+-m, I), with an error that depends on z, t and the class.

    It has the same size for both classes and shrinks with sigma^2.
    """
    schedule = NoiseSchedule.from_alphas_cumprod(
        (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    )
    mean = torch.full((SIDE,), DISTANCE / 2 / SIDE**0.5)

    def predict(z, t, k):
        alpha, sigma = (level.float()[:, None] for level in schedule.at(t))
        exact = sigma * (z - alpha * mean * (1 - 2 * k[:, None]))  # alpha^2 + sigma^2 = 1
        waves = torch.sin(1000 * z + 7 * k[:, None])
        return exact + inaccuracy * (1 - sigma**2) * waves

    return FunctionBackend(predict, schedule=schedule, input_kind="array"), mean.numpy()


def pictures(mean, n=60):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    return rng.standard_normal((n, SIDE)) + np.where(y[:, None] == 0, mean, -mean), y


def record_of(inaccuracy, **params):
    backend, mean = make_backend(inaccuracy)
    X, y = pictures(mean)
    clf = DiffusionClassifier(backend, pruner=NoPruning(DRAWS), random_state=0, **params)
    return clf.fit(None, [0, 1]), X, y


def check_of(table):
    return LikelihoodCheck(table.schedule, table.scoring).add_all(table.rows())


def test_a_perfect_network_has_variances_of_at_most_four_means():
    clf, X, _ = record_of(0.0, weighting="likelihood")
    check = check_of(clf.errors(X))
    n_differences = check.sums[0]
    ratio = check.variance_ratio()[n_differences >= 200]
    assert len(ratio) == 9 and ratio.max() < 1.3
    assert check.noisy_share() == 0


def test_an_inexact_network_varies_more_and_answers_worse():
    clf, X, y = record_of(INACCURATE, weighting="likelihood")
    table = clf.errors(X)
    check = check_of(table)
    noisy = check.noisy_bins()
    # clean timesteps, where the exact predictions of the classes hardly differ
    assert noisy.tolist() == [False] * 6 + [True] * 4 and check.noisy_share() > 0.9
    right = [
        (table.replay(weighting=w).log_posterior().numpy().argmax(1) == y).mean()
        for w in ("likelihood", "uniform")
    ]
    assert right[0] < 0.75 and right[1] > 0.9


@pytest.mark.parametrize("method", ["predict", "predict_proba", "of a table"])
def test_predictions_warn_once_and_say_what_to_do(method):
    clf, X, _ = record_of(INACCURATE, weighting="likelihood")
    if method == "of a table":
        X, method = clf.errors(X), "predict_proba"
    with pytest.warns(UserWarning, match=r"log-SNR .* Use weighting=\"uniform\"") as caught:
        getattr(clf, method)(X)
    assert len(caught) == 1


@pytest.mark.parametrize("params", [{"weighting": "uniform"}, {"weighting": "native"}])
def test_other_weights_do_not_warn(params):
    clf, X, _ = record_of(INACCURATE, **params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X)


@pytest.mark.parametrize("pruner", [NoPruning(DRAWS), None])
@pytest.mark.parametrize(("X", "y"), [(X_IRIS, Y_IRIS), (X_BLOBS, Y_BLOBS)])
def test_exact_predictors_do_not_warn(X, y, pruner):
    clf = DiffusionClassifier(
        GaussianBackend(), weighting="likelihood", pruner=pruner, random_state=0
    ).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X[::5])


def test_few_differences_allow_no_conclusion():
    scoring = Scoring(torch.ones(3).double(), torch.zeros(2).double(), torch.arange(2))
    check = LikelihoodCheck(NoiseSchedule.flow(3), scoring)
    rng = torch.Generator().manual_seed(0)
    timesteps = torch.tensor([0, 1, 2]).repeat(10)
    for n in range(3):
        assert check.noisy_share() == 0, n
        errors = torch.randn(2, 30, generator=rng)
        check.add(errors, timesteps, torch.ones(30), torch.ones(2, dtype=torch.bool))
    assert check.sums[0].sum() == 90
    skipped = torch.full((2, 30), torch.nan)
    check.add(skipped, timesteps, torch.ones(30), torch.ones(2, dtype=torch.bool))
    assert check.sums[0].sum() == 90
