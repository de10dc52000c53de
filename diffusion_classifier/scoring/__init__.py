"""From errors to probabilities: timestep weights, class losses and calibration."""

from .calibration import (
    CALIBRATORS,
    Calibrator,
    CalibratorName,
    DrawsCalibrator,
    FixedCalibrator,
    NaturalCalibrator,
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
    "FixedCalibrator",
    "LikelihoodWeighting",
    "LossName",
    "NativeWeighting",
    "NaturalCalibrator",
    "PromptReduction",
    "Scoring",
    "TemperatureCalibrator",
    "UniformWeighting",
    "Weighting",
    "WeightingName",
]
