r"""Networks with the preconditioning of Karras et al., "Elucidating the Design Space of
Diffusion-Based Generative Models" (EDM), NeurIPS 2022, arXiv 2206.00364.

They are trained on ``x + s eps`` with noise levels s up to 80, and denoise it as

    D = c_skip (x + s eps) + c_out F(c_in (x + s eps), log(s) / 4),

with ``c_in = 1 / sqrt(s^2 + d^2)``, ``c_out = s d c_in``, ``c_skip = (d c_in)^2``, d being the
deviation of the data. That is one more variance-preserving model, of ``x / d``: with
``alpha = d c_in`` and ``sigma = s c_in``, what F reads is ``z = alpha x / d + sigma eps``, and what
it is trained to give is ``sigma x / d - alpha eps``, minus the velocity. So nothing has to be
subtracted that half precision could not resolve: latents are divided by d, and the sign is turned.
"""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...noise.schedule import NoiseSchedule, karras_sigmas
from ..base import Conditioning
from .base import Family, FlowFamily

SIGNS = {"epsilon": -1, "v_prediction": 1}  # of the velocity in F, as EDM schedulers call it


class Preconditioned:
    """A family whose pipeline has an EDM scheduler: all else is as in the family itself.

    The scheduler is read here once, so that it may be exchanged to sample images.
    """

    def __init__(self, family: Family, scheduler: Any) -> None:
        self.family = family
        config, name = scheduler.config, type(scheduler).__name__
        if config.prediction_type not in SIGNS:
            raise InputValueError(
                f"prediction_type={config.prediction_type!r} of {name} is not known, only "
                f"{', '.join(SIGNS)}."
            )
        self.sign = SIGNS[config.prediction_type]
        self.deviation = config.sigma_data
        n, low, high = config.num_train_timesteps, config.sigma_min, config.sigma_max
        if config.sigma_schedule == "exponential":
            self.sigmas = torch.linspace(log(low), log(high), n, dtype=torch.float64).exp()
        else:
            self.sigmas = karras_sigmas(n, low, high, config.rho)

    def __getattr__(self, name: str) -> Any:
        if name == "family":  # not there yet while it is copied
            raise AttributeError(name)
        return getattr(self.family, name)

    def prediction_type(self, pipeline: Any) -> str:
        return "v_prediction"

    def learned_variance(self, pipeline: Any) -> bool:
        return False

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        """Noise levels of the scheduler's grid, from the smallest on."""
        return NoiseSchedule.from_sigmas(self.sigmas, self.deviation)

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        return self.family.encode_images(pipeline, images) / self.deviation

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        times = (self.sigmas.log() / 4).float().to(t.device)[t]
        return self.sign * self.family.forward(pipeline, z, times, condition)


def preconditioned(family: Family, pipeline: Any) -> Any:
    """The family, as a preconditioned one if the pipeline's scheduler says so."""
    if isinstance(family, FlowFamily) or not type(pipeline.scheduler).__name__.startswith("EDM"):
        return family
    return Preconditioned(family, pipeline.scheduler)
