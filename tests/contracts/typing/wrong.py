"""A user's script whose mistakes a type checker finds, each on a line of its own."""

from diffusion_classifier import DiffusionClassifier

DiffusionClassifier(loss="l3")
DiffusionClassifier(batch_size="many")
DiffusionClassifier(pruner=42)
DiffusionClassifier(resize="stretch")
DiffusionClassifier(weighting="best")
