"""Noise predictors in closed form, for tables: classes that are Gaussians or mixtures of them."""

from .gaussian import GaussianBackend
from .mixture import GaussianMixtureBackend

__all__ = ["GaussianBackend", "GaussianMixtureBackend"]
