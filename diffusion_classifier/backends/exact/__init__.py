"""Closed-form noise predictors for tables: Gaussian and Gaussian-mixture classes."""

from .gaussian import GaussianBackend
from .mixture import GaussianMixtureBackend

__all__ = ["GaussianBackend", "GaussianMixtureBackend"]
