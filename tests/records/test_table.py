"""Recorded errors, raced again: the same answers as the network's, for no evaluations."""

import builtins
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from sklearn.utils import _safe_indexing

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.records import ErrorTable
from diffusion_classifier.records.certificate import standard_error
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.strategies import PRUNERS, WEIGHTINGS

LABELS = ["ant", "bee", "cat", "dog"]
X = np.random.default_rng(0).normal(size=(12, 2)) * 2
STAGED = StagedPruner((8, 16), (3, 1), max_draws=24)
MEANS = np.array([[-1.0, 0], [1, 0], [0, 1], [0, -2]])


def fitted(**options):
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    options = {"pruner": STAGED, "random_state": 0, "batch_size": 16, **options}
    return DiffusionClassifier(backend, **options).fit(MEANS, LABELS)


@pytest.fixture(scope="module")
def full():
    return fitted().errors(X, full=True)


def made(pruner, **options):
    """A pruner by its name; one that can learn from the few images that these tests fit on."""
    return PRUNERS[pruner](**options | ({"risk": 0.5} if pruner == "risk_controlled" else {}))


def assert_equal(left, right):
    for name in ("errors", "active", "timesteps", "density", "round_of", "antithetic", "classes"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    for name in ("prediction_type", "loss", "prompts", "seed"):
        assert getattr(left, name) == getattr(right, name), name
    np.testing.assert_equal(left.alpha, right.alpha)
    for name in ("weights", "log_prior", "class_of"):
        assert torch.equal(getattr(left.scoring, name), getattr(right.scoring, name)), name
    assert left.scoring.reduction == right.scoring.reduction
    assert left.scoring.log_temperature == right.scoring.log_temperature
    assert torch.equal(left.schedule.alpha, right.schedule.alpha)
    assert torch.equal(left.schedule.sigma, right.schedule.sigma)


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_replay_is_the_race_of_the_network(name):
    pruner = made(name, max_draws=48)
    clf = fitted(pruner=pruner, sampler=StratifiedSampler(antithetic=True))
    replayed = clf.errors(X, full=True).replay(clf.pruner_)
    assert_equal(replayed, clf.errors(X))
    np.testing.assert_array_equal(clf.predict_proba(replayed), clf.predict_proba(X))


@pytest.mark.parametrize("max_draws", [5, 10, 24])
def test_a_replay_may_spend_less_than_was_recorded(full, max_draws):
    pruner = NoPruning(max_draws)
    assert_equal(full.replay(pruner), fitted(pruner=pruner).errors(X))


def test_antithetic_pairs_stay_whole_in_a_replay():
    clf = fitted(sampler=StratifiedSampler(4, antithetic=True))
    table = clf.errors(X, full=True)
    assert table.antithetic.all()
    assert table.replay(NoPruning(7)).errors.shape[2] == 6


@pytest.mark.parametrize("weighting", ["likelihood", "exponential"])
def test_a_replay_under_other_weights_is_that_classifiers_race(full, weighting):
    clf = fitted(weighting=weighting)
    replayed = full.replay(STAGED, weighting)
    assert_equal(replayed, clf.errors(X))
    np.testing.assert_array_equal(clf.predict_proba(replayed), clf.predict_proba(X))
    np.testing.assert_array_equal(replayed.log_posterior(), clf.predict_log_proba(X))


def test_a_replay_with_priors_is_that_classifiers_race(full):
    priors = [1, 2, 3, 50]
    assert_equal(full.replay(STAGED, priors=priors), fitted(priors=priors).errors(X))


def test_tables_pruned_under_other_weights_are_refused_and_full_ones_are_not(full):
    clf = fitted(weighting="likelihood")
    np.testing.assert_allclose(
        clf.predict_log_proba(full), full.replay(None, "likelihood").log_posterior()
    )
    with pytest.raises(ValueError, match="replay the full table with weighting=clf"):
        clf.predict(full.replay(STAGED))


def test_a_replay_that_needs_what_was_dropped_says_which_error(full):
    with pytest.raises(ValueError, match=r"image 0, prompt \d, draw 8 was not recorded.*full=True"):
        full.replay(STAGED).replay(NoPruning(24))


def test_likelihood_weights_of_recorded_absolute_errors_are_refused(full):
    with pytest.raises(ValueError, match='needs loss="l2"'):
        replace(full, setup=replace(full.setup, loss="l1")).replay(None, "likelihood")


def test_a_table_is_indexed_as_an_array_is(full):
    np.testing.assert_array_equal(full[[3, 1]].errors, full.errors[[3, 1]])
    np.testing.assert_array_equal(full[2].errors, full.errors[2:3])
    np.testing.assert_array_equal(full[-2:].active, full.active[-2:])
    mask = np.arange(len(full)) % 3 == 0
    np.testing.assert_array_equal(full[mask].errors, full.errors[mask])
    assert len(_safe_indexing(full, np.array([0, 4, 5]))) == 3
    raced = full.replay(STAGED)
    part = full[[7, 2]].replay(STAGED)
    np.testing.assert_array_equal(part.errors, raced[[7, 2]].errors)
    with pytest.raises(IndexError):
        full[99]


def test_no_images_cannot_be_raced(full):
    with pytest.raises(ValueError, match="no images"):
        full[[]].replay()


def hand_made(errors, active, **options):
    table = fitted(pruner=NoPruning(6), sampler=StratifiedSampler(2)).errors(X[:1], full=True)
    class_of = torch.tensor(options.pop("class_of", [0, 1, 2, 3]))
    alpha = options.pop("alpha", np.nan)
    scoring = replace(table.scoring, class_of=class_of, **options)
    classes = table.classes[: scoring.n_classes]
    return replace(
        table,
        errors=np.array([errors], np.float32),
        active=np.array([active]),
        setup=replace(table.setup, scoring=scoring, classes=classes, alpha=alpha),
    )


def test_a_certificate_tells_how_the_race_ended():
    n = np.nan
    table = hand_made(
        [[2, 2, 1, 1, 3, 3], [3, 3, 4, 4, 5, 5], [9, 9, n, n, n, n], [9, 9, 8, 8, n, n]],
        [True, True, False, False],
    )
    (record,) = table.certificate
    assert (record.winner, record.runner_up, record.n_draws) == ("ant", "bee", 6)
    assert not record.resolved
    assert np.isnan(record.alpha)
    assert record.margin == pytest.approx(2.0)
    # Round means of the difference are 1, 3 and 2: their standard deviation is 1.
    assert record.standard_error == pytest.approx(1 / np.sqrt(3))


def test_a_certificate_counts_common_draws_of_the_two_best_classes_prompts():
    n = np.nan
    errors = [[2, 2, 1, 1, 3, 3], [3, 3, 6, 6, n, n], [7, 7, n, n, n, n], [9, 9, n, n, n, n]]
    active = [True, False, False, False]
    options = {"class_of": [0, 1, 1, 2], "log_prior": torch.zeros(3), "alpha": 0.05}
    table = hand_made(errors, active, **options)
    (record,) = table.certificate
    assert record.resolved and record.alpha == 0.05
    assert (record.winner, record.runner_up) == ("ant", "bee")
    assert record.margin == pytest.approx(3.0)  # on four common draws
    assert record.standard_error == pytest.approx(2.0)  # round means 1 and 5


def test_the_standard_error_is_that_of_independent_round_means():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 10))[:, :, None].repeat(3, 2)  # rounds of three copies
    round_of = torch.arange(10).repeat_interleave(3)
    errors = [standard_error(torch.as_tensor(row.ravel()), round_of) for row in draws[:400]]
    truth = draws.mean((1, 2)).std()
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(truth, rel=0.05)
    assert np.isnan(standard_error(torch.ones(3), torch.zeros(3, dtype=int)))


def test_certificates_of_resolved_races_name_what_was_predicted(full):
    clf = fitted(pruner=StagedPruner((8,), (1,), max_draws=24))
    table = full.replay(clf.pruner_)
    np.testing.assert_array_equal(table.certificate.winner, clf.predict(table))
    assert table.certificate.resolved.all()
    assert (table.certificate.margin > 0).all()
    assert (table.certificate.n_draws == 8).all()


@pytest.mark.parametrize("reduction", ["best", "mean", "mixture"])
@pytest.mark.parametrize("weighting", sorted(set(WEIGHTINGS) - {"fitted"}))
@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_probabilities_are_probabilities_under_every_pruner(name, weighting, reduction):
    prompts = {"ant": ["a", "b", "c"], "bee": "d", "cat": ["e", "f"], "dog": "g"}
    clf = fitted(
        pruner=made(name, max_draws=40),
        weighting=weighting,
        prompts=prompts,
        prompt_reduction=reduction,
        priors=[1, 5, 1, 0.01],
        sampler=StratifiedSampler(4),
    )
    noise = np.random.default_rng(1).lognormal(0, 2, (12, 7, 40)).astype(np.float32)
    recorded = clf.errors(X, full=True)
    table = replace(recorded, errors=noise).race(clf.pruner_, recorded.scoring)
    for temperature in (1e-4, 1.0, 1e8):
        scoring = replace(recorded.scoring, log_temperature=(np.log(temperature), -0.3))
        proba = table.log_posterior(scoring).exp().numpy()
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
        surviving = np.zeros((12, 4), bool)
        for prompt, label in enumerate(table.class_of):
            surviving[:, label] |= table.active[:, prompt]
        assert surviving[np.arange(12), proba.argmax(1)].all()


@pytest.mark.parametrize("labels", [LABELS, [1, 2, 3, 4], np.array(LABELS, object)])
def test_a_table_comes_back_from_parquet_as_it_went(tmp_path, labels):
    clf = fitted().fit(MEANS, labels)
    for table in (clf.errors(X), clf.errors(X, full=True)):
        table.to_parquet(tmp_path / "table.parquet")
        read = ErrorTable.from_parquet(tmp_path / "table.parquet")
        assert_equal(read, table)
        assert read.classes.dtype == table.classes.dtype
        np.testing.assert_array_equal(clf.predict_proba(read), clf.predict_proba(table))


def test_parquet_files_are_plain_data_frames(tmp_path):
    table = fitted().errors(X)
    table.to_parquet(tmp_path / "table.parquet")
    frame = pandas.read_parquet(tmp_path / "table.parquet")
    assert frame.columns.tolist() == ["image", "label", "prompt", "active", "n_draws", "errors"]
    assert frame.n_draws.sum() == table.n_evaluations.sum()
    np.testing.assert_array_equal(frame.errors[1], table.errors[0, 1, : frame.n_draws[1]])


def test_another_parquet_file_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other.parquet holds no ErrorTable"):
        ErrorTable.from_parquet(tmp_path / "other.parquet")


def test_without_pyarrow_the_way_out_is_named(monkeypatch, tmp_path, full):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'diffusion-classifier\[parquet\]'"):
        full.to_parquet(tmp_path / "table.parquet")


def test_a_table_carries_the_models_schedule(full):
    assert isinstance(full.schedule, NoiseSchedule)
    assert full.prediction_type == "epsilon"
    assert full.round_of.tolist() == sorted(full.round_of)
