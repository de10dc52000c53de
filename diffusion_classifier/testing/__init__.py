"""Checks for backends and families of your own, as scikit-learn's ``check_estimator``."""

from .backends import check_backend
from .checks import BACKEND_CHECKS
from .families import FAMILY_CHECKS, check_family

__all__ = ["BACKEND_CHECKS", "FAMILY_CHECKS", "check_backend", "check_family"]
