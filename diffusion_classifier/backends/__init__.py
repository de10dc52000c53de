"""Noise predictors: diffusion models behind one interface."""

from .base import Backend, Conditioning
from .embedded import load_embedded
from .exact import GaussianBackend, GaussianMixtureBackend
from .families import register_family
from .function import FunctionBackend
from .loading import Conversion, clear_model_cache, convert_weights
from .pipeline import DiffusersBackend

__all__ = [
    "Backend",
    "Conditioning",
    "Conversion",
    "DiffusersBackend",
    "FunctionBackend",
    "GaussianBackend",
    "GaussianMixtureBackend",
    "clear_model_cache",
    "convert_weights",
    "load_embedded",
    "register_family",
]
