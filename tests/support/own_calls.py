"""How the public checks of families call the pipeline of a case."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.testing import own_call
from tests.support.family_cases import Case, generate


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


def images_of(case: Case) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, *case.pixels, generator=generator) * 2 - 1


def options_of(case: Case, pipeline: Any) -> dict[str, Any]:
    """Arguments of ``check_family``."""
    scheduler = None
    if case.time_before_shift:
        scheduler = TimesBeforeShift.from_config(pipeline.scheduler.config)
    wanted = {
        diffusers.HiDreamImagePipeline,
        diffusers.BriaPipeline,
        diffusers.BriaFiboPipeline,
        diffusers.Kandinsky5T2IPipeline,
        diffusers.DDPMPipeline,
    }
    return {
        "images": images_of(case),
        "labels": case.labels,
        "call": case.call,
        "generate": generate if type(pipeline) in wanted else None,
        "scheduler": scheduler,
    }


def subject_of(case: Case, backend: DiffusersBackend) -> own_call.FamilySubject:
    """What the checks of a family are given."""
    options = options_of(case, backend.pipeline)
    return own_call.FamilySubject(backend=backend, company=case.labels[-1], **options)


def recorded(case: Case, backend: DiffusersBackend, n_steps: int) -> list[own_call.Call]:
    """Calls of the denoiser in the pipeline's own ``__call__``, in evenly spaced steps."""
    return own_call.recorded(subject_of(case, backend), n_steps)
