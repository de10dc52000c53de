"""What a family's denoiser is given by the pipeline's own ``__call__``."""

import copy
from typing import Any

import diffusers
import torch

from tests.support.family_cases import record


def own_scheduler(case, pipeline):
    """The scheduler of training, on which one step denoises entirely."""
    config = pipeline.scheduler.config
    if case.deviation is not None:
        return diffusers.EDMEulerScheduler.from_config(config)
    if case.time_before_shift:
        return TimesBeforeShift.from_config(config)
    if case.prediction_type == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(
            config, shift=1.0, use_dynamic_shifting=False
        )
    options: dict[str, Any] = {
        "clip_sample": False,
        "thresholding": False,
        "variance_type": "fixed_small",
    }
    return AncestralScheduler.from_config(config, timestep_spacing="trailing", **options)


class AncestralScheduler(diffusers.DDPMScheduler):
    def set_timesteps(self, n, device=None, **ignored):
        super().set_timesteps(n, device)


class TimesBeforeShift(diffusers.FlowMatchEulerDiscreteScheduler):
    """Reaches given noise levels at the times that its own shift takes to them."""

    def set_timesteps(self, n=None, device=None, sigmas=None, mu=1.0, timesteps=None):
        wanted = torch.tensor(sigmas, dtype=torch.float64)
        low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(50):
            middle = (low + high) / 2
            above = torch.as_tensor(self.time_shift(mu, 1.0, middle)) > wanted
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        times = ((low + high) / 2).tolist()
        super().set_timesteps(
            device=device, sigmas=times, mu=mu, timesteps=[1000 * time for time in times]
        )


def recorded(case, backend, timesteps):
    """Calls of the denoiser in the pipeline's own ``__call__`` at these evenly spaced timesteps."""
    pipeline = copy.copy(backend.pipeline)
    pipeline.scheduler = own_scheduler(case, pipeline)
    options: dict[str, Any] = {"num_inference_steps": len(timesteps)}
    if case.prediction_type == "flow":
        options["sigmas"] = [(t + 0.5) / 1000 for t in timesteps]
    if case.deviation is not None:  # where on its grid, from the most noise to the least
        options["sigmas"] = 1 - torch.tensor(timesteps) / 999
    return record(case, pipeline, **options)
