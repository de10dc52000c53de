"""The natural temperature: exact where the answer is known, and humble where evidence disagrees."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner
from diffusion_classifier.scoring import (
    FixedCalibrator,
    LikelihoodWeighting,
    NaturalCalibrator,
    UniformWeighting,
    Weighting,
)
from diffusion_classifier.scoring.class_losses import Scoring
from diffusion_classifier.scoring.natural import doubt, natural_temperature

FLOW = NoiseSchedule.flow(1000)


class Scaled(Weighting):
    """Likelihood weights times a number."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def weights(self, schedule, prediction_type):
        return self.scale * LikelihoodWeighting().weights(schedule, prediction_type)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_the_temperature_undoes_the_scale_of_weights(scale):
    weights = Scaled(scale).weights(FLOW, "flow")
    assert natural_temperature(Scaled(scale), weights, FLOW) == pytest.approx(scale)


def test_uniform_weights_have_the_inverse_of_the_middle_likelihood_weight():
    ones = torch.ones(1000, dtype=torch.float64)
    weights = LikelihoodWeighting().weights(FLOW, "flow")
    expected = 1 / float(np.median(weights))
    assert natural_temperature(UniformWeighting(), ones, FLOW) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["l1", "huber"])
def test_other_losses_are_compared_with_squares_of_normal_residuals(loss):
    """The mean increase by a small u of the loss of 1e6 normal numbers."""
    r, u = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).double(), 0.3
    of = {
        "l1": torch.abs,
        "huber": lambda x: torch.nn.functional.huber_loss(x, 0 * x, reduction="none"),
    }
    d = (of[loss](r + u) + of[loss](r - u) - 2 * of[loss](r)).mean() / 2
    ones = torch.ones(1000, dtype=torch.float64)
    ratio = natural_temperature(UniformWeighting(), ones, FLOW, loss) / natural_temperature(
        UniformWeighting(), ones, FLOW
    )
    assert ratio == pytest.approx(float(d) / u**2, rel=0.04)


def test_log_likelihoods_are_in_nats_already():
    weights = LikelihoodWeighting().weights(FLOW, "flow")
    for weighting, loss in ((LikelihoodWeighting(), "l2"), (UniformWeighting(), "vlb")):
        calibrator = NaturalCalibrator().prepare(weighting, weights, FLOW, loss)
        assert (calibrator.log_temperature_, calibrator.unit) == ((0.0, 0.0), "nats")


def test_doubt_is_the_standard_error_between_levels():
    generator = torch.Generator().manual_seed(0)
    d = 100 * torch.randn(3, 100, generator=generator).double() + 50
    contributions = torch.cat([torch.zeros(1, 100).double(), d])
    timesteps = torch.randperm(1000, generator=generator)[:100]
    in_order = d[:, timesteps.argsort()].view(3, 5, 20).mean(2)
    expected = np.sqrt((in_order.numpy().var(1, ddof=1) / 5).mean() / 20)
    found = doubt(contributions, timesteps, torch.arange(4))
    assert expected > 1.05 and found == pytest.approx(expected)


def test_doubt_needs_no_full_race_and_ignores_prompts_of_one_class():
    contributions = torch.tensor([[0.0] * 10, [0.0, 40.0] * 5, [9.0, -30.0] + [np.nan] * 8])
    timesteps, class_of = torch.arange(10), torch.tensor([0, 1, 1])
    assert doubt(contributions[:2].double(), timesteps, class_of[:2]) == 1.0  # levels agree
    # Over two draws in one level nothing is known, and the prompt counts a sixth.
    assert doubt(contributions.double(), timesteps, class_of) == 1.0
    assert doubt(contributions[1:2].double(), timesteps, class_of[:1]) == 1.0  # no rival


def digits(**options):
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=150, random_state=0, stratify=y)
    backend = GaussianBackend(covariance_type="shared", reg_param=0.01, schedule=FLOW)
    return DiffusionClassifier(backend, random_state=0, **options).fit(X, y), X_test, y_test


def log_loss(log_proba, y):
    return float(-log_proba[np.arange(len(y)), y].mean())


def test_probabilities_mean_something_without_any_label():
    """Handwritten digits as Gaussian classes; the best of all temperatures is known afterwards."""
    clf, X, y = digits(pruner=RacingPruner(max_draws=60))
    table = clf.errors(X)
    losses = table.class_losses().numpy()
    temperatures = clf.temperature_ * np.geomspace(0.05, 50, 100)
    best = min(log_loss(log_softmax(-losses / t, 1), y) for t in temperatures)
    natural = log_loss(table.log_posterior().numpy(), y)
    plain = log_loss(log_softmax(-losses, 1), y)
    assert best < natural < best + 0.05 < plain


def test_no_class_is_changed_by_a_temperature():
    clf, X, _ = digits(pruner=NoPruning(20))
    answers = [
        clf.set_params(calibrator=c).fit(X, _).predict(X) for c in ("natural", None, 0.01, 100)
    ]
    assert all((other == answers[0]).all() for other in answers[1:])


def test_doubt_tempers_the_likelihood_and_not_the_priors():
    """Where levels disagree beyond all measure, the priors are left."""
    errors = torch.stack([torch.zeros(10), torch.tensor([-1e9, 1.001e9] * 5)])
    timesteps, active = torch.tensor([0, 9, 1, 8, 2, 7, 3, 6, 4, 5]), torch.ones(2).bool()
    log_prior = torch.tensor([0.8, 0.2]).double().log()
    scoring = Scoring(torch.ones(10).double(), log_prior, torch.arange(2), unit="natural")
    # Levels by t: (0, 1), ..., (8, 9) hold -1e9 at t < 5 and 1.001e9 above it.
    found = scoring.log_posterior_of(errors, timesteps, torch.ones(10).double(), active)
    mean, sd = 5e5, float(doubt(errors.double(), timesteps, torch.arange(2)))
    expected = torch.log_softmax(torch.tensor([0.0, -mean / sd]) + log_prior, 0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    given = Scoring(torch.ones(10).double(), log_prior, torch.arange(2))
    assert given.log_posterior_of(errors, timesteps, torch.ones(10).double(), active)[1] < -1e4


def test_a_dropped_class_never_wins_by_its_prior():
    errors = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-1e6, 1.01e6, np.nan, np.nan]])
    log_prior = torch.tensor([0.01, 0.99]).double().log()
    scoring = Scoring(torch.ones(4).double(), log_prior, torch.arange(2), unit="natural")
    active = torch.tensor([True, False])
    row = errors, torch.arange(4), torch.ones(4).double(), active
    assert int(scoring.log_posterior_of(*row).argmax()) == 0


@pytest.mark.parametrize("value", [0, -1.0, np.inf, np.nan])
def test_a_temperature_must_be_positive(value):
    with pytest.raises(InputValueError, match=r"calibrator=.* must be a finite number > 0"):
        DiffusionClassifier(calibrator=value).fit(None, ["one", "two"])


def test_a_number_is_the_temperature():
    clf, X, _ = digits(pruner=NoPruning(8), calibrator=2.5)
    table = clf.errors(X[:5])
    expected = log_softmax(-table.class_losses().numpy() / 2.5, 1)
    np.testing.assert_allclose(clf.predict_log_proba(X[:5]), expected, atol=1e-12)
    assert clf.temperature_ == pytest.approx(2.5)
    assert isinstance(clf.calibrator_, FixedCalibrator)
    clf.set_params(calibrator__value=3.0)
    assert clf.calibrator.value == 3.0


def test_a_natural_temperature_follows_the_weights_of_a_replay():
    clf, X, _ = digits(pruner=NoPruning(20))
    table = clf.errors(X[:20])
    for weighting in ("likelihood", "exponential", "uniform"):
        other, *_ = digits(pruner=NoPruning(20), weighting=weighting)
        replayed = table.replay(weighting=weighting)
        np.testing.assert_array_equal(replayed.log_posterior(), other.predict_log_proba(X[:20]))
        table = replayed  # and back again, through log-likelihoods


def test_natural_and_given_temperatures_are_saved(tmp_path):
    clf, X, _ = digits(pruner=NoPruning(8))
    for calibrator in ("natural", 0.5):
        clf.set_params(calibrator=calibrator).fit(X, _)
        clf.save(tmp_path)
        loaded = DiffusionClassifier.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
        assert loaded.calibrator == calibrator and loaded.temperature_ == clf.temperature_
        table = clf.errors(X[:4])
        table.to_parquet(tmp_path.parent / "t.parquet")
        again = type(table).from_parquet(tmp_path.parent / "t.parquet")
        np.testing.assert_array_equal(again.log_posterior(), table.log_posterior())
