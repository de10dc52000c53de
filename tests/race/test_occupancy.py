"""Batches are full: rows per call over the batch size, before the last tenth of the rows."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import RacingPruner

SHAPE, FULL = (4, 8, 8), 128  # rows that "auto" chooses for this latent on a CPU


def rows_per_call(n_classes, n_images):
    outputs = 0.3 * torch.randn(n_classes, *SHAPE, generator=torch.Generator().manual_seed(0))
    rows = []

    def network(z, t, condition):
        rows.append(len(z))
        return outputs[condition]

    backend = FunctionBackend(
        network, schedule=NoiseSchedule.flow(100), input_shape=SHAPE, input_kind="array"
    )
    X = np.random.default_rng(0).normal(size=(n_images, *SHAPE)).astype(np.float32)
    clf = DiffusionClassifier(backend, pruner=RacingPruner(max_draws=60), random_state=0, verbose=0)
    clf.fit(None, list(range(n_classes))).predict(X)
    return np.array(rows)


@pytest.mark.parametrize(
    ("n_classes", "n_images", "least"),
    [(10, 64, 0.94), (3, 64, 0.95), (2, 64, 0.95), (3, 512, 0.95)],
)
def test_batches_are_full_until_the_last_images(n_classes, n_images, least):
    rows = rows_per_call(n_classes, n_images)
    early = rows[rows.cumsum() <= 0.9 * rows.sum()]
    assert rows.max() == FULL and least < early.mean() / FULL <= 1
