"""The forward process: noise schedules, draws (t, eps) and noise-prediction errors."""

from .draws import Draws
from .prediction import LOSSES, PREDICTION_TYPES, PredictionTypeName, noise_errors
from .process import PROCESSES, GaussianProcess, MaskedTokens, OrderedTokens, Process
from .schedule import NoiseSchedule, karras_sigmas
from .variational import VariationalBound

__all__ = [
    "LOSSES",
    "PREDICTION_TYPES",
    "PROCESSES",
    "Draws",
    "GaussianProcess",
    "MaskedTokens",
    "NoiseSchedule",
    "OrderedTokens",
    "PredictionTypeName",
    "Process",
    "VariationalBound",
    "karras_sigmas",
    "noise_errors",
]
