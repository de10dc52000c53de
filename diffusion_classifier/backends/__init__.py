"""Noise predictors: what turns images and prompts into noise-prediction errors."""

from .analytic import GaussianBackend, GaussianMixtureBackend
from .base import Backend, Conditioning
from .cache import clear_model_cache
from .embedded import load_embedded
from .families import register_family
from .function import FunctionBackend
from .pipeline import DiffusersBackend

__all__ = [
    "Backend",
    "Conditioning",
    "DiffusersBackend",
    "FunctionBackend",
    "GaussianBackend",
    "GaussianMixtureBackend",
    "clear_model_cache",
    "load_embedded",
    "register_family",
]
