"""Checks for backends and families of your own, as scikit-learn's ``check_estimator``."""

from .backends import check_backend
from .checks import BACKEND_CHECKS

__all__ = ["BACKEND_CHECKS", "check_backend"]
