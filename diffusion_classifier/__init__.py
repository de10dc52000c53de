"""Turn any diffusion model into a zero-shot image classifier, with a scikit-learn API."""

from ._version import __version__
from .classifier import DiffusionClassifier

__all__ = ["DiffusionClassifier", "__version__"]
