"""The estimator: what it promises whatever the network."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import FixedDraws, StratifiedSampler
from tests.support.pipelines import saved, tiny_sd

LABELS = ["eel", "cat", "dog"]
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
STAGED = StagedPruner((4, 8), (2, 1), max_draws=12)


@pytest.fixture(scope="module")
def backend():
    return DiffusersBackend(tiny_sd())


@pytest.fixture
def make(backend):
    def make(labels=LABELS, **options):
        options = {"pruner": STAGED, "random_state": 0, "batch_size": 8, **options}
        return DiffusionClassifier(backend, **options).fit(None, labels)

    return make


def test_zero_shot_fit_sorts_the_classes_and_writes_their_prompts(make):
    clf = make()
    assert clf.classes_.tolist() == ["cat", "dog", "eel"]
    assert clf.prompts_ == {
        "cat": ["a photo of a cat"],
        "dog": ["a photo of a dog"],
        "eel": ["a photo of an eel"],
    }


def test_fit_on_images_takes_the_classes_from_y(backend):
    y = ["cat", "dog", "cat", "eel", "cat", "dog", "dog", "eel", "cat"]
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), random_state=0).fit(IMAGES, y)
    zero_shot = DiffusionClassifier(backend, pruner=NoPruning(4), random_state=0).fit(None, LABELS)
    np.testing.assert_array_equal(clf.predict_proba(IMAGES), zero_shot.predict_proba(IMAGES))
    assert clf.score(IMAGES, y) == np.mean(clf.predict(IMAGES) == np.array(y))


def test_probabilities_sum_to_one_and_agree_with_every_other_answer(make):
    clf = make()
    proba = clf.predict_proba(IMAGES)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(np.log(proba), clf.predict_log_proba(IMAGES), atol=1e-9)
    np.testing.assert_array_equal(clf.decision_function(IMAGES), clf.predict_log_proba(IMAGES))
    assert (clf.predict(IMAGES) == clf.classes_[proba.argmax(1)]).all()


def test_two_classes_have_log_odds(make):
    clf = make(["cat", "dog"])
    log_proba = clf.predict_log_proba(IMAGES)
    np.testing.assert_allclose(clf.decision_function(IMAGES), log_proba[:, 1] - log_proba[:, 0])


def test_predictions_do_not_depend_on_order_or_company(make):
    clf = make()
    together = clf.predict_proba(IMAGES)
    order = np.random.default_rng(1).permutation(len(IMAGES))
    np.testing.assert_array_equal(clf.predict_proba(IMAGES[order]), together[order])
    alone = np.concatenate([clf.predict_proba(IMAGES[i : i + 1]) for i in range(len(IMAGES))])
    np.testing.assert_array_equal(alone, together)


def test_unpruned_errors_do_not_depend_on_batch_size(make):
    tables = [
        make(batch_size=size, pruner=NoPruning(8)).errors(IMAGES).errors
        for size in (1, 8, 33, "auto")
    ]
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=1e-5)


def test_one_seed_gives_one_answer_and_another_seed_another(make):
    np.testing.assert_array_equal(make().predict_proba(IMAGES), make().predict_proba(IMAGES))
    other = make(random_state=1).predict_proba(IMAGES)
    assert np.abs(other - make().predict_proba(IMAGES)).max() > 1e-6


def test_pruning_evaluates_less_and_full_errors_everything(make):
    clf = make()
    raced, full = clf.errors(IMAGES), clf.errors(IMAGES, full=True)
    assert raced.n_evaluations.tolist() == [4 * 3 + 4 * 2] * len(IMAGES)
    assert full.n_evaluations.tolist() == [12 * 3] * len(IMAGES)
    evaluated = ~np.isnan(raced.errors)
    n_draws = raced.errors.shape[2]
    np.testing.assert_array_equal(raced.errors[evaluated], full.errors[:, :, :n_draws][evaluated])
    assert (raced.active.sum(1) == 1).all()


def test_a_recorded_table_answers_without_the_network(make, monkeypatch):
    clf = make()
    table, proba = clf.errors(IMAGES), clf.predict_proba(IMAGES)
    monkeypatch.setattr(clf.backend_, "forward", None)
    np.testing.assert_array_equal(clf.predict_proba(table), proba)
    other = make(["cat", "fox"])
    with pytest.raises(ValueError, match="record errors with this classifier"):
        other.predict(table)


def test_priors_shift_log_odds_by_their_log_ratio(make):
    flat = make(["cat", "dog"], pruner=NoPruning(8)).decision_function(IMAGES)
    tilted = make(["cat", "dog"], pruner=NoPruning(8), priors=[1, 3]).decision_function(IMAGES)
    np.testing.assert_allclose(tilted - flat, np.log(3), atol=1e-6)


@pytest.mark.parametrize("reduction", ["best", "mean", "mixture"])
def test_several_prompts_per_class_reduce_as_asked(make, reduction):
    prompts = {"cat": ["a cat", "one cat"], "dog": "a dog", "eel": ["an eel", "eel", "x"]}
    clf = make(prompts=prompts, prompt_reduction=reduction, pruner=NoPruning(8), calibrator=None)
    table = clf.errors(IMAGES)
    assert table.class_of.tolist() == [0, 0, 1, 2, 2, 2]
    losses = table.errors.astype(float).mean(2)
    reduce = {
        "best": lambda part: part.min(1),
        "mean": lambda part: part.mean(1),
        "mixture": lambda part: -np.log(np.exp(-part).mean(1)),
    }[reduction]
    expected = np.stack([reduce(losses[:, table.class_of == c]) for c in range(3)], 1)
    log_proba = clf.predict_log_proba(IMAGES)
    np.testing.assert_allclose(
        log_proba - log_proba[:, :1], expected[:, :1] - expected, rtol=1e-6, atol=1e-6
    )


def test_the_users_own_draws_are_used(make):
    noise = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
    table = make(sampler=FixedDraws([10, 500, 990], noise), pruner=NoPruning()).errors(IMAGES)
    assert table.timesteps.tolist() == [10, 500, 990]
    zero = make(sampler=FixedDraws([10, 500, 990]), pruner=NoPruning()).errors(IMAGES)
    assert not np.allclose(table.errors, zero.errors)


def test_weights_change_the_losses_they_should(make):
    clf = make(weighting="native", pruner=NoPruning(8))
    np.testing.assert_allclose(
        clf.predict_proba(IMAGES), make(pruner=NoPruning(8)).predict_proba(IMAGES), atol=1e-9
    )  # an epsilon network's own loss is uniform
    likelihood = make(weighting="likelihood", pruner=NoPruning(8))
    table = likelihood.errors(IMAGES)
    w = likelihood.weighting_.weights(likelihood.backend_.schedule, "epsilon").numpy()
    losses = (table.errors.astype(float) * w[table.timesteps]).mean(2)
    expected = losses[:, :1] - losses
    log_proba = likelihood.predict_log_proba(IMAGES)
    np.testing.assert_allclose(log_proba - log_proba[:, :1], expected, rtol=1e-5, atol=1e-5)


def test_the_cost_is_an_upper_bound_known_before_spending(make):
    clf = make()
    cost = clf.estimate_cost(len(IMAGES))
    assert cost.evaluations == clf.errors(IMAGES).n_evaluations.sum()
    assert cost.seconds > 0


def test_strategies_are_nested_parameters(make):
    clf = make(pruner=clone(STAGED)).set_params(
        pruner__max_draws=20, pruner__n_draws=(4,), pruner__keep=(1,)
    )
    assert clf.fit(None, LABELS).pruner_.max_draws == 20
    copy = clone(clf)
    assert copy.pruner is not clf.pruner
    assert copy.get_params()["pruner__max_draws"] == 20


@pytest.mark.parametrize("name", ["none", "staged"])
def test_strategies_have_names(make, name):
    clf = make(pruner=name, sampler="stratified", weighting="exponential")
    assert type(clf.pruner_).__name__.lower().startswith(name[:2])
    assert isinstance(clf.sampler_, StratifiedSampler)


@pytest.mark.parametrize(
    "options, error, complaint",
    [
        ({"pruner": "greedy"}, ValueError, "pruner='greedy' is not known; use one of 'none'"),
        ({"sampler": "sobol"}, ValueError, "sampler='sobol' is not known; use one of 'strat"),
        ({"weighting": "best"}, ValueError, "weighting='best' is not known; use one of 'uni"),
        ({"pruner": 3}, TypeError, "pruner=3 must be a Pruner"),
        ({"pruner": NoPruning}, TypeError, "an instance, not the class"),
        ({"loss": "mse"}, ValueError, "loss='mse' is not known; use one of 'l2', 'l1', 'huber'"),
        ({"prompt_reduction": "max"}, ValueError, "use one of 'best', 'mean', 'mixture'"),
        ({"resize": "stretch"}, ValueError, "use one of 'crop', 'pad', 'squash'"),
        ({"priors": [1, 2]}, ValueError, "3 positive numbers"),
        ({"priors": [1, 0, 1]}, ValueError, "3 positive numbers"),
        ({"weighting": "likelihood", "loss": "l1"}, ValueError, 'needs loss="l2"'),
        ({"prompts": "a photo"}, ValueError, "{}"),
        ({"prompts": "a {0.__class__}"}, ValueError, "__class__"),
        ({"prompts": {"cat": "a cat"}}, ValueError, "dog"),
    ],
)
def test_bad_parameters_are_refused_in_fit(make, options, error, complaint):
    with pytest.raises(error, match=complaint):
        make(**options)


@pytest.mark.parametrize(
    "labels, complaint",
    [
        (["cat"], "at least two classes"),
        ([], "at least two classes"),
        (["cat", "dog", "cat"], r"\['cat'\] are given more than once"),
        (None, "fit\\(None, labels\\)"),
    ],
)
def test_bad_labels_are_refused(make, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(labels)


def test_images_and_labels_must_match_in_number(backend):
    with pytest.raises(ValueError, match=r"\[9, 2\]"):
        DiffusionClassifier(backend).fit(IMAGES, ["cat", "dog"])


def test_number_labels_are_warned_about_unless_prompts_are_given(make):
    with pytest.warns(UserWarning, match="'a photo of a 0'; name the classes in words"):
        make([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make([0, 1], prompts={0: "a cat", 1: "a dog"})


def test_an_unfitted_classifier_says_so(backend):
    for method in ("predict", "predict_proba", "decision_function", "errors", "estimate_cost"):
        with pytest.raises(NotFittedError):
            getattr(DiffusionClassifier(backend), method)(IMAGES)


@pytest.mark.parametrize("X", [[], np.zeros((0, 16, 16, 3), np.uint8)])
def test_no_images_is_an_error(make, X):
    with pytest.raises(ValueError, match="no images"):
        make().predict(X)


@pytest.mark.parametrize("size", [(16, 16, 1), 2.5, 0, "big"])
def test_impossible_image_sizes_are_refused(make, size):
    with pytest.raises(ValueError, match="image_size"):
        make(image_size=size).predict(IMAGES)


def test_image_size_and_resize_are_honoured(make):
    wide = np.concatenate([IMAGES, IMAGES[:, :, :8]], 2)  # 16 x 24
    cropped = make(image_size=(16, 16)).predict_proba(wide)
    np.testing.assert_array_equal(cropped, make().predict_proba(wide[:, :, 4:20]))
    squashed = make(resize="squash").predict_proba(wide)
    assert np.abs(squashed - cropped).max() > 1e-6
    small = make(image_size=8, pruner=NoPruning(4)).errors(IMAGES)
    assert np.isfinite(small.errors).all()


def test_a_pipeline_in_memory_is_wrapped_and_another_object_is_refused():
    pipeline = tiny_sd()
    assert DiffusionClassifier(pipeline).fit(None, LABELS).backend_.pipeline is pipeline
    with pytest.raises(TypeError, match="backend"):
        DiffusionClassifier(object()).fit(None, LABELS)


def test_a_folder_is_loaded_once_and_pickles_small(tmp_path):
    folder = saved(tiny_sd("v_prediction"), tmp_path)
    options = {"pruner": STAGED, "random_state": 0, "device": "cpu"}
    clf = DiffusionClassifier(folder, **options).fit(None, LABELS)
    other = DiffusionClassifier(folder, **options).fit(None, ["cat", "dog"])
    assert clf.backend_.pipeline is other.backend_.pipeline
    assert clf.backend_.prediction_type == "v_prediction"
    data = pickle.dumps(clf)
    assert len(data) < 50_000
    np.testing.assert_array_equal(
        pickle.loads(data).predict_proba(IMAGES), clf.predict_proba(IMAGES)
    )


def test_progress_is_shown_only_when_asked_for(make, capsys):
    make().predict(IMAGES)
    assert capsys.readouterr().err == ""
    make(verbose=1).predict(IMAGES)
    bar = capsys.readouterr().err
    assert "9/9" in bar and "180 evaluations" in bar
