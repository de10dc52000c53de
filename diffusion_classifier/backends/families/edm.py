r"""Networks with the preconditioning of EDM.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022
(arXiv 2206.00364). The network F is trained to denoise ``x + s eps``, with noise levels s up to 80,
as

    D = c_skip (x + s eps) + c_out F(c_in (x + s eps), log(s) / 4),

where d is the standard deviation of the data, ``c_in = 1 / sqrt(s^2 + d^2)``,
``c_out = s d c_in`` and ``c_skip = (d c_in)^2``.

This is a variance-preserving model of ``x / d``: with ``alpha = d c_in`` and ``sigma = s c_in``, F
reads ``z = alpha x / d + sigma eps`` and predicts ``sigma x / d - alpha eps``, minus the velocity.
We therefore divide latents by d and flip the sign of the output. Recovering D instead would take
a difference that half precision cannot resolve.
"""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...noise.prediction import PredictionTypeName
from ...noise.schedule import NoiseSchedule, karras_sigmas
from ..base import Conditioning
from .base import Family, FlowFamily

SIGNS = {"epsilon": -1, "v_prediction": 1}  # of the velocity in F, by EDM prediction type


class Preconditioned:
    """Wrapper of a family for pipelines with an EDM scheduler.

    All that does not depend on the preconditioning is delegated to the family. The scheduler is
    read once, here, so that users may replace it to sample images.
    """

    def __init__(self, family: Family, scheduler: Any) -> None:
        self.family = family
        config, name = scheduler.config, type(scheduler).__name__
        if config.prediction_type not in SIGNS:
            raise InputValueError(
                f"prediction_type={config.prediction_type!r} of {name} is not supported, only "
                f"{', '.join(SIGNS)}; correct the scheduler's configuration."
            )
        self.sign = SIGNS[config.prediction_type]
        self.deviation = config.sigma_data
        n, low, high = config.num_train_timesteps, config.sigma_min, config.sigma_max
        if config.sigma_schedule == "exponential":
            self.sigmas = torch.linspace(log(low), log(high), n, dtype=torch.float64).exp()
        else:
            self.sigmas = karras_sigmas(n, low, high, config.rho)

    def __getattr__(self, name: str) -> Any:
        if name == "family":  # not yet set while an instance is being copied
            raise AttributeError(name)
        return getattr(self.family, name)

    def prediction_type(self, pipeline: Any) -> PredictionTypeName:
        return "v_prediction"

    def learned_variance(self, pipeline: Any) -> bool:
        return False

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        """Return the schedule of the scheduler's noise levels, in increasing order."""
        return NoiseSchedule.from_sigmas(self.sigmas, self.deviation)

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        return self.family.encode_images(pipeline, images) / self.deviation

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        times = (self.sigmas.log() / 4).float().to(t.device)[t]
        return self.sign * self.family.forward(pipeline, z, times, condition)


def preconditioned(family: Family, pipeline: Any) -> Any:
    """Wrap a family as Preconditioned if the pipeline has an EDM scheduler."""
    if isinstance(family, FlowFamily) or not type(pipeline.scheduler).__name__.startswith("EDM"):
        return family
    return Preconditioned(family, pipeline.scheduler)
