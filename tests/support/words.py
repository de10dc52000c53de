"""A model of rows that reads words: the mean of a class is the sum of its words' vectors."""

import numpy as np
import torch

from diffusion_classifier.backends import Backend, Conditioning
from diffusion_classifier.noise import NoiseSchedule

COLOURS = ["blue", "green", "red"]
DIGITS = ["five", "one", "three", "two"]
LABELS = sorted(f"{colour} {digit}" for colour in COLOURS for digit in DIGITS)
FACTORS = {"colour": COLOURS, "digit": DIGITS}
N_FEATURES = 16
VECTORS = dict(
    zip(
        [*COLOURS, *DIGITS],
        np.random.default_rng(3).normal(size=(7, N_FEATURES)) * 1.2,
        strict=True,
    )
)


def mean_of(text):
    """Sum of the vectors of the words that the model knows."""
    return sum((VECTORS[word] for word in text.split() if word in VECTORS), np.zeros(N_FEATURES))


def rows(n, seed=0):
    """Rows of given classes, with noise of unit variance: X and labels."""
    rng = np.random.default_rng(seed)
    y = np.array(LABELS)[np.arange(n) % len(LABELS)]
    return np.stack([mean_of(label) for label in y]) + rng.normal(size=(n, N_FEATURES)), y


class WordBackend(Backend):
    """Exact noise prediction for unit Gaussians around the sums of words; counts its rows."""

    input_kind = "array"
    input_shape = (N_FEATURES,)
    default_template = "{}"
    prediction_type = "epsilon"
    schedule = NoiseSchedule.flow(100)

    def __init__(self):
        self.n_rows = 0

    def __sklearn_clone__(self):
        return self

    def fingerprint(self):
        return "words"

    def encode_images(self, images):
        return images.float()

    def encode_classes(self, labels, prompts):
        return Conditioning(mean=torch.tensor(np.stack([mean_of(p) for p in prompts])).float())

    def forward(self, z, t, condition):
        self.n_rows += len(z)
        alpha, sigma = (level[:, None].float() for level in self.schedule.at(t))
        return sigma * (z - alpha * condition["mean"]) / (alpha**2 + sigma**2)
