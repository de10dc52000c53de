"""Turn any diffusion model into a zero-shot image classifier, with a scikit-learn API."""

from ._version import __version__
from .classifier import DiffusionClassifier
from .images import as_images
from .images.latents import Latents
from .records import ErrorTable

__all__ = ["DiffusionClassifier", "ErrorTable", "Latents", "__version__", "as_images"]
