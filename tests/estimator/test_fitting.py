"""What fit(X, y) learns, from what, and at which price."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.estimator.fitting import choose_images, fit_record
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring import TemperatureCalibrator, UniformWeighting

MEANS = np.array([[-1.0, 0], [1, 0], [0, 1.5]])
LABELS = ["ant", "bee", "cat"]
STAGED = StagedPruner((8,), (2,), max_draws=16)


class Counted(GaussianBackend):
    """Counts its evaluations."""

    n_rows = 0

    def forward(self, z, t, condition):
        self.n_rows += len(z)
        return super().forward(z, t, condition)


class Remembering(UniformWeighting):
    """Wants a record, and keeps it."""

    needs_record = True

    def learn(self, record, weights=None):
        self.record_ = record
        return self


def sample(n, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n)
    return MEANS[truth] + rng.normal(size=(n, 2)), np.array(LABELS)[truth]


def classifier(**options):
    backend = Counted(MEANS, np.eye(2), covariance_type="shared")
    options = {"pruner": STAGED, "random_state": 0, "batch_size": 64, **options}
    return DiffusionClassifier(backend, **options)


def log_loss(clf, X, y):
    log_proba = clf.predict_log_proba(X)
    return -log_proba[np.arange(len(y)), np.searchsorted(clf.classes_, y)].mean()


def test_nothing_is_evaluated_unless_a_strategy_learns():
    assert classifier().fit(*sample(30)).backend_.n_rows == 0
    assert classifier(calibrator="temperature").fit(*sample(30)).backend_.n_rows > 0


def test_errors_are_recorded_once_in_full_on_so_many_images():
    clf = classifier(weighting=Remembering(), calibrator="temperature", n_fit_images=10)
    clf.fit(*sample(60))
    assert clf.backend_.n_rows == 512  # 10 x 3 x 16 = 480, padded to batches of 64
    record = clf.weighting_.record_
    assert record.errors.shape == (10, 3, 16)
    assert not record.errors.isnan().any()


def test_the_record_holds_the_images_errors_and_classes():
    X, y = sample(20)
    clf = classifier(weighting=Remembering()).fit(X, y)
    record = clf.weighting_.record_
    torch.testing.assert_close(record.errors, torch.as_tensor(clf.errors(X, full=True).errors))
    assert record.true_class.tolist() == np.searchsorted(LABELS, y).tolist()
    assert record.log_prior.tolist() == pytest.approx([-np.log(3)] * 3)


def test_zero_shot_a_calibrator_says_that_it_needs_images():
    with pytest.raises(ValueError, match=r"calibrator=.* learns from labelled images; call fit"):
        classifier(calibrator="temperature").fit(None, LABELS)
    assert classifier(weighting=Remembering()).fit(None, LABELS).backend_.n_rows == 0


@pytest.mark.parametrize("calibrator", ["temperature", "temperature-draws"])
def test_a_calibrated_classifier_has_less_log_loss_on_new_images(calibrator):
    (X, y), (X_new, y_new) = sample(100), sample(150, seed=1)
    plain, calibrated = (
        classifier(calibrator=c, weighting="exponential").fit(X, y) for c in (None, calibrator)
    )
    assert log_loss(calibrated, X_new, y_new) < log_loss(plain, X_new, y_new) - 0.02
    np.testing.assert_array_equal(calibrated.predict(X_new), plain.predict(X_new))


def test_a_table_stands_for_its_images_in_fit():
    X, y = sample(40)
    clf = classifier(calibrator="temperature").fit(X, y)
    table = clf.errors(X, full=True)
    other = classifier(calibrator="temperature").fit(table, y)
    assert other.backend_.n_rows == 0
    assert other.calibrator_.log_temperature_ == clf.calibrator_.log_temperature_
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ValueError, match="learn from full tables"):
        classifier(calibrator="temperature").fit(clf.errors(X), y)


def test_the_temperature_is_fitted_on_races_of_images_that_nothing_was_learned_from():
    seen = []

    class Spy(Remembering):
        def learn(self, record, weights=None):
            seen.append(record.errors[:, 0, 0].tolist())
            return self

    X, y = sample(20)
    clf = classifier(weighting=Spy(), calibrator="temperature").fit(X, y)
    everything = set(clf.errors(X, full=True).errors[:, 0, 0].tolist())
    assert set(seen[0]) == everything
    held_out = [everything - set(others) for others in seen[1:]]
    assert [len(images) for images in held_out] == [4] * 5
    assert set().union(*held_out) == everything


def test_priors_mean_the_same_at_any_temperature():
    X, y = sample(60)
    clf = classifier(calibrator="temperature", priors=[1, 1, 8], pruner=NoPruning(16)).fit(X, y)
    table = clf.errors(X, full=True)
    level = replace(table, errors=np.ones_like(table.errors))
    np.testing.assert_allclose(clf.predict_proba(level)[0], [0.1, 0.1, 0.8])


def test_a_learned_temperature_survives_clone_as_a_parameter_only():
    clf = classifier(calibrator=TemperatureCalibrator()).fit(*sample(20))
    assert not hasattr(clf.calibrator, "log_temperature_")
    assert np.isfinite(clf.calibrator_.log_temperature_[0])


@pytest.mark.parametrize("n", [4, 10, 99, 500])
def test_chosen_images_keep_the_proportions_of_classes(n):
    truth = np.repeat([0, 1, 2], [100, 50, 50])
    chosen = choose_images(truth, n, seed=0)
    assert len(chosen) == len(set(chosen.tolist())) == min(n, 200)
    shares = np.bincount(truth[chosen], minlength=3) / len(chosen)
    assert np.abs(shares - [0.5, 0.25, 0.25]).max() <= 1.5 / len(chosen)


def test_one_image_is_too_few():
    with pytest.raises(ValueError, match="n_fit_images=1 is too few"):
        classifier(calibrator="temperature", n_fit_images=1).fit(*sample(9))


def test_fewer_images_than_folds_are_raced_one_by_one():
    clf = classifier(calibrator="temperature").fit(MEANS, LABELS)
    assert np.isfinite(clf.calibrator_.log_temperature_[0])


def test_a_table_of_another_network_is_not_learned_from():
    X, y = sample(30)
    table = classifier().fit(X, y).errors(X, full=True)
    other = DiffusionClassifier(GaussianBackend(2 * MEANS, np.eye(2), covariance_type="shared"))
    other.set_params(pruner=STAGED, weighting="fitted")
    for made in (table, table.replay()):
        with pytest.raises(ValueError, match="the table was made with"):
            other.fit(made, y)


def test_a_race_of_one_round_needs_no_variance():
    X, y = sample(30)
    one_round = {"sampler": StratifiedSampler(8), "pruner": RacingPruner(max_draws=8)}
    clf = classifier(calibrator="temperature", **one_round).fit(X, y)
    assert clf.errors(X).n_evaluations.tolist() == [24] * 30


def test_a_record_is_made_of_a_table():
    X, y = sample(6)
    clf = classifier().fit(X, y)
    record = fit_record(clf.errors(X, full=True), np.zeros(6, int))
    assert len(record) == 6
    assert record.round_of.tolist() == np.repeat(range(8), 2).tolist()


def test_a_sampler_learns_from_a_pilot_and_the_record_is_made_with_its_draws():
    clf = classifier(sampler="importance", weighting=Remembering(), batch_size=12).fit(*sample(20))
    record = clf.weighting_.record_
    pilot, full = 20 * 3 * (16 // 4), 20 * 3 * 16
    assert clf.backend_.n_rows == pilot + full
    proposal, share = clf.sampler_.proposal_.numpy(), clf.sampler_.uniform_share
    p = (1 - share) * proposal / proposal.sum() + share / 1000
    np.testing.assert_allclose(record.density, 1000 * p[record.timesteps])
    assert np.ptp(record.density.numpy()) > 0.1
