"""Configurations whose numbers make no sense are refused by name, not computed with."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.errors import InputValueError
from tests.support.pipelines import LEVELS, tiny_sd


@pytest.mark.parametrize(
    "config, complaint",
    [
        ({"scaling_factor": 0.0}, r"scaling_factor=0.0 must not be 0"),
        ({"scaling_factor": math.nan}, r"scaling_factor=nan must be finite"),
        ({"scaling_factor": "x"}, r"scaling_factor='x' must be finite numbers"),
        ({"shift_factor": math.inf}, r"shift_factor=inf must be finite"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1, 0, 1, 1]}, r"latents_std=.* must not be 0"),
        ({"latents_mean": [0, math.nan, 0, 0], "latents_std": [1] * 4}, r"latents_mean\[1\]=nan"),
    ],
)
def test_an_autoencoder_whose_scale_is_unusable_is_refused(config, complaint):
    pipeline = tiny_sd()
    pipeline.vae.register_to_config(**config)
    with pytest.raises(InputValueError, match=f"the autoencoder's {complaint}"):
        DiffusersBackend(pipeline)


def test_no_scaling_factor_is_a_factor_of_one():
    pipeline, images = tiny_sd(), torch.rand(1, 3, 16, 16)
    factor = pipeline.vae.config.scaling_factor
    scaled = DiffusersBackend(pipeline).encode_images(images)
    pipeline.vae.register_to_config(scaling_factor=None)
    unscaled = DiffusersBackend(pipeline).encode_images(images)
    np.testing.assert_allclose(scaled, factor * unscaled, rtol=1e-5)


@pytest.mark.parametrize(
    "config, complaint",
    [
        ({"beta_start": -0.1}, r"betas\[0\]=-0.1 "),
        ({"beta_start": 0.0}, r"betas\[0\]=0 "),
        ({"beta_end": 1.5, "num_train_timesteps": 3}, r"betas\[2\]=1.5 "),
        ({"beta_start": math.nan}, r"betas\[0\]=nan "),
        ({"trained_betas": [0.1, 0.2, 1.2, 1.3]}, r"betas\[2\]=1.2 "),
        ({"trained_betas": [0.1, 1.0, 0.2]}, r"betas\[1\]=1 "),
    ],
)
def test_a_beta_outside_0_and_1_is_refused_with_its_timestep(config, complaint):
    pipeline = tiny_sd()
    pipeline.scheduler = DDIMScheduler(**config)
    with pytest.raises(InputValueError, match=f"{complaint}.*must be above 0 and below 1"):
        DiffusersBackend(pipeline)


def test_a_last_timestep_without_signal_stays():
    pipeline = tiny_sd()
    pipeline.scheduler = DDIMScheduler(**LEVELS, rescale_betas_zero_snr=True)
    assert DiffusersBackend(pipeline).schedule.alpha[-1] == 0
