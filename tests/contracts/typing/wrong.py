"""A user's script whose mistakes a type checker finds, each on a line of its own."""

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.datasets import load_scenes

DiffusionClassifier(loss="l3")  # wrong
DiffusionClassifier(batch_size="many")  # wrong
DiffusionClassifier(pruner=42)  # wrong
DiffusionClassifier(resize="stretch")  # wrong
DiffusionClassifier(weighting="best")  # wrong
GaussianBackend(prediction_type="noise")  # wrong
load_scenes("validation")  # wrong
