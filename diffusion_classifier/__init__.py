"""Turn any diffusion model into a zero-shot image classifier, with a scikit-learn API."""

from ._version import __version__
from .classifier import DiffusionClassifier
from .error_table import ErrorTable
from .images import as_images
from .latents import Latents

__all__ = ["DiffusionClassifier", "ErrorTable", "Latents", "__version__", "as_images"]
