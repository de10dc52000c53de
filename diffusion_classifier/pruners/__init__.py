"""Pruners: which classes stay in the race, and when the race ends."""

from typing import Literal

from .base import NoPruning, Pruner
from .paired import PairedTestPruner
from .racing import RacingPruner
from .risk_controlled import RiskControlledPruner
from .staged import StagedPruner
from .threshold import ThresholdPruner

PrunerName = Literal["none", "racing", "paired", "threshold", "staged", "risk_controlled"]
PRUNERS: dict[str, type[Pruner]] = {
    "none": NoPruning,
    "racing": RacingPruner,
    "paired": PairedTestPruner,
    "threshold": ThresholdPruner,
    "staged": StagedPruner,
    "risk_controlled": RiskControlledPruner,
}

__all__ = [
    "PRUNERS",
    "NoPruning",
    "PairedTestPruner",
    "Pruner",
    "PrunerName",
    "RacingPruner",
    "RiskControlledPruner",
    "StagedPruner",
    "ThresholdPruner",
]
