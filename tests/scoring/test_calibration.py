import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.base import clone

from diffusion_classifier.scoring import DrawsCalibrator, TemperatureCalibrator

UNIFORM = np.log(np.full(3, 1 / 3))
BOTH = pytest.mark.parametrize("calibrator", [TemperatureCalibrator(), DrawsCalibrator()])


def simulated(n, temperature, log_prior=UNIFORM, seed=0):
    """Losses, draws and classes of a world whose true temperature is known."""
    rng = np.random.default_rng(seed)
    n_draws = rng.choice([8, 40, 200], n)
    losses = rng.normal(size=(n, len(log_prior))) * 30
    scores = -losses / temperature(n_draws)[:, None] + log_prior
    truth = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    return losses, n_draws, truth


def log_loss(calibrator, losses, n_draws, truth, log_prior=UNIFORM):
    scores = -losses / calibrator.temperature(n_draws)[:, None] + log_prior
    return -log_softmax(scores, axis=1)[np.arange(len(truth)), truth].mean()


@BOTH
@pytest.mark.parametrize("temperature", [0.5, 12.0, 100.0])
def test_a_known_temperature_is_found(calibrator, temperature):
    races = simulated(4000, lambda n: temperature + 0 * n)
    fitted = clone(calibrator).learn(*races, UNIFORM)
    np.testing.assert_allclose(fitted.temperature(races[1]), temperature, rtol=0.2)


def test_a_temperature_that_falls_with_draws_is_found():
    races = simulated(4000, lambda n: 100 / np.sqrt(n))
    fitted = DrawsCalibrator().learn(*races, UNIFORM)
    level, slope = fitted.log_temperature_
    assert slope == pytest.approx(-0.5, abs=0.07)
    assert np.exp(level) == pytest.approx(100, rel=0.25)
    assert log_loss(fitted, *races) < log_loss(
        TemperatureCalibrator().learn(*races, UNIFORM), *races
    )


@BOTH
def test_priors_are_not_tempered(calibrator):
    prior = np.log([0.7, 0.2, 0.1])
    races = simulated(4000, lambda n: 20.0 + 0 * n, prior)
    fitted = clone(calibrator).learn(*races, prior)
    np.testing.assert_allclose(fitted.temperature(40), 20, rtol=0.15)


@BOTH
def test_perfect_answers_give_a_finite_confidence(calibrator):
    losses = np.array([[0.0, 30.0, 40.0]] * 100)
    fitted = clone(calibrator).learn(losses, np.full(100, 16), np.zeros(100, int), UNIFORM)
    error = 1 - np.exp(-log_loss(fitted, losses[:1], np.array([16]), np.array([0])))
    assert 1e-4 < error < 0.02  # a hundred answers do not show more


@BOTH
def test_answers_that_are_always_wrong_give_a_finite_temperature(calibrator):
    losses = np.array([[0.0, 30.0, 40.0]] * 100)
    fitted = clone(calibrator).learn(losses, np.full(100, 16), np.full(100, 2), UNIFORM)
    assert 30 < fitted.temperature(16) < 1e5


@BOTH
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_multiplying_the_weights_changes_no_probability(calibrator, scale):
    losses, n_draws, truth = simulated(60, lambda n: 9.0 + 0 * n)
    plain = clone(calibrator).learn(losses, n_draws, truth, UNIFORM)
    scaled = clone(calibrator).learn(losses * scale, n_draws, truth, UNIFORM)
    ratio = scaled.temperature(n_draws) / plain.temperature(n_draws)
    np.testing.assert_allclose(ratio, scale, rtol=1e-3)


@BOTH
@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_images_and_absent_classes_are_enough(calibrator, n):
    losses, n_draws, truth = simulated(n, lambda n: 9.0 + 0 * n)
    fitted = clone(calibrator).learn(losses, n_draws, 0 * truth, UNIFORM)
    assert (fitted.temperature([1, 1000]) > 0.1).all()
    assert np.isfinite(fitted.temperature([1, 1000])).all()


@BOTH
def test_losses_that_say_nothing_are_survived(calibrator):
    fitted = clone(calibrator).learn(np.ones((9, 3)), np.full(9, 4), np.arange(9) % 3, UNIFORM)
    assert np.isfinite(fitted.temperature(4))


@BOTH
def test_impossible_races_are_refused(calibrator):
    with pytest.raises(ValueError, match=r"losses of shape \(0, 3\)"):
        clone(calibrator).learn(np.ones((0, 3)), [], [], UNIFORM)
    with pytest.raises(ValueError, match="must be finite"):
        clone(calibrator).learn([[np.nan, 1]], [4], [0], UNIFORM)
    with pytest.raises(ValueError, match="losses have 2 rows"):
        clone(calibrator).learn(np.ones((2, 3)), [4, 4], [0], UNIFORM)
