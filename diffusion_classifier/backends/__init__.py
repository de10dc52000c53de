"""Noise predictors: what turns images and prompts into noise-prediction errors."""

from .analytic import GaussianBackend, GaussianMixtureBackend
from .base import Backend, Conditioning
from .function import FunctionBackend
from .pipeline import DiffusersBackend

__all__ = [
    "Backend",
    "Conditioning",
    "DiffusersBackend",
    "FunctionBackend",
    "GaussianBackend",
    "GaussianMixtureBackend",
]
