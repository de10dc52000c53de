"""Noise predictors: what turns images and prompts into noise-prediction errors."""

from .base import Backend, Conditioning
from .pipeline import DiffusersBackend

__all__ = ["Backend", "Conditioning", "DiffusersBackend"]
