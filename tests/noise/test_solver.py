"""The solver draws what a network describes, whatever its prediction type."""

import numpy as np
import pytest
import torch

from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule
from diffusion_classifier.noise.solver import draw_latents, predicted_parts, solver_timesteps

MEAN, DEVIATION = 1.5, 0.5
SCHEDULES = {
    "flow": NoiseSchedule.flow(1000),
    "ddpm": NoiseSchedule.from_alphas_cumprod(
        (1 - torch.linspace(1e-4, 0.02, 1000).double()).cumprod(0)
    ),
    "karras": NoiseSchedule.from_sigmas(torch.logspace(-2, 2, 500), 0.5),
}


def exact(schedule, kind):
    """The optimal network of latents from N(MEAN, DEVIATION^2)."""

    def predict(z, t):
        alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
        gain = alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2)
        x = MEAN + gain * (z - alpha * MEAN)
        eps = (z - alpha * x) / sigma
        return PREDICTION_TYPES[kind].target(x, eps, torch.tensor(alpha), torch.tensor(sigma))

    return predict


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_drawings_have_the_mean_and_deviation_of_the_images(name, kind):
    """A normal distribution: starts are mapped to the same quantiles of the images."""
    schedule = SCHEDULES[name]
    start = torch.linspace(-2, 2, 41)[:, None]
    drawn = draw_latents(exact(schedule, kind), start, schedule, kind, n_steps=100)
    np.testing.assert_allclose(drawn, MEAN + DEVIATION * start, atol=0.06)
    coarse = draw_latents(exact(schedule, kind), start, schedule, kind)
    np.testing.assert_allclose(coarse, MEAN + DEVIATION * start, atol=0.25)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_a_right_output_gives_back_image_and_noise(kind):
    schedule = SCHEDULES["ddpm"]
    x, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 100, 500, 900, 999])
    alpha, sigma = schedule.at(t)
    levels = (level.float()[:, None] for level in (alpha, sigma))
    a, s = levels
    z = a * x + s * eps
    parts = predicted_parts(PREDICTION_TYPES[kind].target(x, eps, a, s), z, alpha, sigma, kind)
    np.testing.assert_allclose(parts.image, x, atol=2e-4)
    np.testing.assert_allclose(parts.noise, eps, atol=2e-4)


def test_a_schedule_without_signal_at_its_end_can_be_solved():
    schedule = NoiseSchedule([1.0, 0.8, 0.0], [0.01, 0.6, 1.0])
    drawn = draw_latents(
        exact(schedule, "v_prediction"), torch.ones(1, 1), schedule, "v_prediction"
    )
    assert drawn.isfinite().all() and solver_timesteps(3) == [2, 1, 0]
