"""From errors to probabilities: timestep weights, class losses and calibration."""

from .calibration import (
    CALIBRATORS,
    Calibrator,
    CalibratorName,
    DrawsCalibrator,
    TemperatureCalibrator,
)
from .class_losses import LossName, PromptReduction, Scoring
from .weighting import (
    WEIGHTINGS,
    ExponentialWeighting,
    FittedWeighting,
    LikelihoodWeighting,
    NativeWeighting,
    UniformWeighting,
    Weighting,
    WeightingName,
)

__all__ = [
    "CALIBRATORS",
    "WEIGHTINGS",
    "Calibrator",
    "CalibratorName",
    "DrawsCalibrator",
    "ExponentialWeighting",
    "FittedWeighting",
    "LikelihoodWeighting",
    "LossName",
    "NativeWeighting",
    "PromptReduction",
    "Scoring",
    "TemperatureCalibrator",
    "UniformWeighting",
    "Weighting",
    "WeightingName",
]
