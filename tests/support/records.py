"""Fit records from given errors, shared by the tests of what strategies learn."""

import torch

from diffusion_classifier.learner import FitRecord
from diffusion_classifier.noise import NoiseSchedule

T = 100


def make_record(errors, true_class, class_of=None, timesteps=None, **changes):
    n_prompts, n_draws = errors.shape[1:]
    class_of = torch.arange(n_prompts) if class_of is None else torch.tensor(class_of)
    fields = {
        "errors": errors.float(),
        "true_class": torch.as_tensor(true_class),
        "class_of": class_of,
        "timesteps": torch.arange(n_draws) % T if timesteps is None else timesteps,
        "density": torch.ones(n_draws, dtype=torch.float64),
        "round_of": torch.arange(n_draws) // 4,
        "log_prior": torch.zeros(int(class_of.max()) + 1, dtype=torch.float64),
        "schedule": NoiseSchedule.flow(T),
        "prediction_type": "flow",
    }
    return FitRecord(**(fields | changes))
