"""The forward process: noise schedules, draws (t, eps) and noise-prediction errors."""

from .draws import Draws
from .prediction import LOSSES, PREDICTION_TYPES, PredictionTypeName, noise_errors
from .schedule import NoiseSchedule, karras_sigmas
from .variational import VariationalBound

__all__ = [
    "LOSSES",
    "PREDICTION_TYPES",
    "Draws",
    "NoiseSchedule",
    "PredictionTypeName",
    "VariationalBound",
    "karras_sigmas",
    "noise_errors",
]
