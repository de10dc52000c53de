"""Parameters of strategies are set also while the strategy is None or a name."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from diffusion_classifier.samplers import EvenSampler, ImportanceSampler, StratifiedSampler
from diffusion_classifier.strategies import Strategies, default_sampler

X = np.random.default_rng(0).normal(size=(30, 3))
Y = np.arange(30) % 2
GAUSSIAN = {"backend": GaussianBackend(n_timesteps=20), "random_state": 0}


def test_the_default_pruner_gets_the_parameter():
    clf = DiffusionClassifier(**GAUSSIAN).set_params(pruner__alpha=0.2, pruner__max_draws=8)
    assert isinstance(clf.pruner, RacingPruner)
    assert (clf.pruner.alpha, clf.pruner.max_draws) == (0.2, 8)
    expected = DiffusionClassifier(**GAUSSIAN, pruner=RacingPruner(alpha=0.2, max_draws=8))
    proba = clf.fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(proba, expected.fit(X, Y).predict_proba(X))
    assert repr(clone(clf)) == repr(clf)


@pytest.mark.parametrize(
    ("parameter", "value", "made", "cls"),
    [
        ("pruner__max_draws", 7, "racing", RacingPruner),
        ("pruner__max_draws", 7, "none", NoPruning),
        ("sampler__round_size", 4, "stratified", StratifiedSampler),
        ("sampler__round_size", 4, None, StratifiedSampler),
        ("sampler__stages", (2, 6), "even", EvenSampler),
        ("sampler__uniform_share", 0.5, "importance", ImportanceSampler),
    ],
)
def test_named_and_default_strategies_get_the_parameter(parameter, value, made, cls):
    kind, _, name = parameter.partition("__")
    clf = DiffusionClassifier(**GAUSSIAN, **{kind: made}).set_params(**{parameter: value})
    assert type(getattr(clf, kind)) is cls
    assert getattr(getattr(clf, kind), name) == value
    assert clf.get_params()[parameter] == value


def test_the_default_sampler_of_the_embedded_model_keeps_its_proposal():
    clf = DiffusionClassifier(weighting="exponential").set_params(sampler__round_size=4)
    assert clf.sampler.round_size == 4
    backend = DiffusionClassifier().fit(None, ["red digit", "blue digit"]).backend_
    strategies = Strategies.resolve(
        backend, weighting="exponential", sampler=None, pruner=None, calibrator=None
    )
    expected = default_sampler(backend, strategies.weighting)
    np.testing.assert_array_equal(clf.sampler.proposal, expected.proposal)


def test_a_name_in_the_same_call_comes_first():
    clf = DiffusionClassifier(**GAUSSIAN)
    clf.set_params(pruner__keep=(2, 1), pruner="staged", pruner__n_draws=(2, 4))
    assert isinstance(clf.pruner, StagedPruner)
    assert (clf.pruner.keep, clf.pruner.n_draws) == ((2, 1), (2, 4))


def test_an_instance_is_changed_as_scikit_learn_does():
    pruner = RacingPruner(alpha=0.3)
    clf = DiffusionClassifier(pruner=pruner).set_params(pruner__max_draws=9)
    assert clf.pruner is pruner and (pruner.alpha, pruner.max_draws) == (0.3, 9)


def test_nothing_else_changes_while_strategies_are_none_or_names():
    clf = DiffusionClassifier(**GAUSSIAN, weighting="uniform")
    before = clf.get_params()
    assert before["pruner"] is None and before["weighting"] == "uniform"
    assert not [name for name in before if name.startswith(("pruner__", "sampler__"))]
    assert clf.set_params(loss="l1", backend__n_timesteps=30) is clf
    assert clf.get_params() == {**before, "loss": "l1", "backend__n_timesteps": 30}


def test_grids_reach_into_the_default_pruner_also_in_a_pipeline():
    grid = {"pruner__alpha": [0.01, 0.2], "pruner__max_draws": [2, 6]}
    search = GridSearchCV(DiffusionClassifier(**GAUSSIAN), grid, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.pruner.alpha == search.best_params_["pruner__alpha"]
    pipeline = make_pipeline(StandardScaler(), DiffusionClassifier(**GAUSSIAN))
    grid = {f"diffusionclassifier__{name}": values for name, values in grid.items()}
    again = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    assert np.isfinite(again.cv_results_["mean_test_score"]).all()
    assert again.best_estimator_[-1].pruner_.max_draws in (2, 6)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"calibrator": None, "calibrator__x": 1},
            InputValueError,
            "calibrator__x cannot .* calibrator=None has no",
        ),
        ({"calibrator__x": 1}, ValueError, "Invalid parameter 'x' for estimator NaturalCalibrator"),
        ({"loss__x": 1}, InputValueError, "loss__x cannot be set, because loss='l2' has no"),
        ({"pruner__x": 1}, ValueError, "Invalid parameter 'x' for estimator RacingPruner"),
        ({"pruner__alpha": 1, "pruner": "x"}, ValueError, "pruner='x' is not known"),
        ({"pruners__alpha": 1}, ValueError, "Invalid parameter 'pruners'"),
        ({"prune": 1}, ValueError, "Invalid parameter 'prune'"),
    ],
)
def test_parameters_that_do_not_exist_are_named(params, error, message):
    with pytest.raises(error, match=message):
        DiffusionClassifier(**GAUSSIAN).set_params(**params)
    assert DiffusionClassifier().set_params().pruner is None
