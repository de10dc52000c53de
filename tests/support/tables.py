"""Error tables of made-up errors, in which the true classes and their lead are known."""

import numpy as np
import torch

from diffusion_classifier import ErrorTable
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.records import RecordSetup
from diffusion_classifier.scoring import Scoring

T = 100


def make_table(n_images=12, n_classes=10, n_draws=40, *, lead=3.0, per_round=4, skipped=()):
    """A full table, and its labels: each true class leads by ``lead`` on average, on every draw.

    The difference of two classes has variance 2 on a draw.
    """
    rng = np.random.default_rng(0)
    y = np.arange(n_images) % n_classes
    errors = 100 + 10 * rng.normal(size=(1, 1, n_draws))  # what classes share
    errors = errors + rng.normal(size=(n_images, n_classes, n_draws))
    errors[np.arange(n_images), y] -= lead
    errors[list(skipped)] = np.nan
    active = np.ones((n_images, n_classes), bool)
    active[list(skipped)] = False
    log_prior = torch.zeros(n_classes, dtype=torch.float64).log_softmax(0)
    setup = RecordSetup(
        scoring=Scoring(torch.ones(T, dtype=torch.float64), log_prior, torch.arange(n_classes)),
        schedule=NoiseSchedule.flow(T),
        prediction_type="flow",
        loss="l2",
        classes=np.array([f"class {k:04}" for k in range(n_classes)]),
        prompts=tuple(f"class {k:04}" for k in range(n_classes)),
        seed=0,
    )
    table = ErrorTable(
        errors=errors.astype(np.float32),
        active=active,
        timesteps=(np.arange(n_draws) * 37 + 11) % T,
        density=np.ones(n_draws),
        round_of=np.arange(n_draws) // per_round,
        antithetic=np.zeros(n_draws, bool),
        setup=setup,
        skipped=tuple((image, "it is damaged.") for image in skipped),
    )
    return table, setup.classes[y]
