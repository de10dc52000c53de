import math

import pytest
import torch

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.noise import NoiseSchedule


def test_variance_preserving_levels_square_to_one():
    schedule = NoiseSchedule.from_alphas_cumprod(torch.linspace(0.999, 0.001, 50))
    assert schedule.alpha.dtype == torch.float64
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(50).double())


def test_flow_levels_sit_at_half_steps_and_sum_to_one():
    schedule = NoiseSchedule.flow(1000)
    alpha, sigma = schedule.at(torch.tensor([[0, 499], [500, 999]]))
    assert sigma.tolist() == [[0.0005, 0.4995], [0.5005, 0.9995]]
    torch.testing.assert_close(alpha + sigma, torch.ones(2, 2).double())


def test_log_snr_is_log_of_squared_ratio():
    schedule = NoiseSchedule([0.8, 0.0], [0.6, 1.0])
    assert schedule.log_snr[0].item() == pytest.approx(math.log(0.64 / 0.36))
    assert schedule.log_snr[1].item() == -math.inf


@pytest.mark.parametrize(
    "alpha, sigma, complaint",
    [
        ([1.0], [0.1, 0.2], "same positive length"),
        ([], [], "same positive length"),
        ([-0.1], [1.0], r"alpha\[0\] = -0.1 must be finite"),
        ([0.5, math.nan], [1.0, 1.0], r"alpha\[1\] = nan must be finite"),
        ([1.0], [0.0], r"sigma\[0\] = 0 must be positive"),
    ],
)
def test_impossible_levels_are_refused(alpha, sigma, complaint):
    with pytest.raises(ValueError, match=complaint):
        NoiseSchedule(alpha, sigma)


BETAS = torch.linspace(1e-4, 0.02, 1000)


@pytest.mark.parametrize(
    "alphas_cumprod, complaint",
    [
        (BETAS, r"rises from -9\.21 at t=0 to -9\.029 at t=1\. .*not betas"),
        ((1 - BETAS).cumprod(0).flip(0), "reverse the levels"),
        (torch.full((3,), 0.02), r"it is -3\.892 at every t\."),
        ([0.9, 0.5, 0.6, 0.1], r"from 0 at t=1 to 0\.4055 at t=2"),
    ],
    ids=["betas", "reversed", "constant", "a bump"],
)
def test_schedules_whose_snr_does_not_fall_are_refused(alphas_cumprod, complaint):
    with pytest.raises(InputValueError, match=complaint):
        NoiseSchedule.from_alphas_cumprod(alphas_cumprod)


def test_one_timestep_level_steps_and_a_last_step_without_signal_are_fine():
    assert NoiseSchedule([0.6], [0.8]).n_timesteps == 1
    assert NoiseSchedule.from_alphas_cumprod([0.9, 0.9, 0.5, 0.0]).log_snr[-1] == -math.inf
