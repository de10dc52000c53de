import math

import pytest
import torch

from diffusion_classifier.learner import Profile
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule
from diffusion_classifier.scoring.weighting import (
    WEIGHTINGS,
    ExponentialWeighting,
    FittedWeighting,
    LikelihoodWeighting,
    NativeWeighting,
)
from tests.support.records import make_record

SD = NoiseSchedule.from_alphas_cumprod(
    torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0)
)
ZERO_SNR = NoiseSchedule([0.9, 0.5, 0.0], [0.1, 0.5, 1.0])


@pytest.mark.parametrize("name", [n for n in WEIGHTINGS if n != "fitted"])
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("schedule", [SD, ZERO_SNR, NoiseSchedule.flow(10)])
def test_weights_are_finite_and_not_negative(name, kind, schedule):
    weights = WEIGHTINGS[name]().weights(schedule, kind)
    assert weights.shape == (schedule.n_timesteps,) and weights.dtype == torch.float64
    assert torch.isfinite(weights).all() and (weights >= 0).all()


def test_likelihood_weights_integrate_half_of_the_log_snr_range():
    weights = LikelihoodWeighting().weights(SD, "epsilon")
    snr = SD.log_snr
    ends = (snr[0] - snr[1] + snr[-2] - snr[-1]) / 2
    assert weights.mean().item() == pytest.approx(((snr[0] - snr[-1] + ends) / 2).item())
    assert weights[500].item() == pytest.approx((500 * (snr[499] - snr[501]) / 2).item())


def test_exponential_weights_restate_an_image_space_error():
    weights = ExponentialWeighting().weights(SD, "epsilon")
    expected = math.exp(-7 * 0.3) * (SD.sigma[300] / SD.alpha[300]) ** 2
    assert weights[300].item() == pytest.approx(expected.item())
    flow = NoiseSchedule.flow(10)
    expected = math.exp(-7 * 0.35) * (0.35 / 0.65) ** 2
    assert ExponentialWeighting().weights(flow, "flow")[3].item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_native_weights_undo_the_scale_to_noise_space(kind):
    weights = NativeWeighting().weights(SD, kind)
    scale = PREDICTION_TYPES[kind].scale(SD.alpha, SD.sigma)
    torch.testing.assert_close(weights * scale**2, torch.ones(1000).double())


def noisy_record(n_images, seed=0):
    """Only the first half of the timesteps tells the classes apart."""
    errors = torch.randn(n_images, 3, 200, generator=torch.Generator().manual_seed(seed))
    errors[:, 1:, :100] += 2
    timesteps = torch.arange(200) // 2
    return make_record(errors, [0] * n_images, timesteps=timesteps)


def test_fitted_weights_count_the_timesteps_that_tell_classes_apart():
    record = noisy_record(100)
    weights = FittedWeighting(prior_images=0).learn(record).weights(record.schedule, "flow")
    assert weights[:40].min() > 10 * weights[60:].max()
    assert (weights >= 0).all()
    mean = Profile.learn(record).mean
    assert torch.allclose((weights * mean).mean(), mean.mean())


def test_few_labels_leave_fitted_weights_near_uniform():
    few = FittedWeighting().learn(noisy_record(2)).weights_
    many = FittedWeighting().learn(noisy_record(200)).weights_
    assert few.max() / few.min() < 1.6
    assert many.max() / many.min() > 5


def test_fitted_weights_are_uniform_where_nothing_can_be_learned():
    record = make_record(torch.ones(2, 2, 8), [0, 1])
    assert FittedWeighting().learn(record).weights_.tolist() == pytest.approx([1.0] * 100)
    with pytest.raises(ValueError, match="learns from labelled images"):
        FittedWeighting().weights(record.schedule, "flow")
    with pytest.raises(ValueError, match="prior_images=-1"):
        FittedWeighting(-1).learn(record)
