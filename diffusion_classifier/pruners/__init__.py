"""Pruners: which classes stay in the race, and when the race ends."""

from typing import Literal

from .base import NoPruning, Pruner
from .paired import PairedTestPruner
from .racing import RacingPruner
from .staged import StagedPruner
from .threshold import ThresholdPruner

PrunerName = Literal["none", "racing", "paired", "threshold", "staged"]
PRUNERS: dict[str, type[Pruner]] = {
    "none": NoPruning,
    "racing": RacingPruner,
    "paired": PairedTestPruner,
    "threshold": ThresholdPruner,
    "staged": StagedPruner,
}

__all__ = [
    "PRUNERS",
    "NoPruning",
    "PairedTestPruner",
    "Pruner",
    "PrunerName",
    "RacingPruner",
    "StagedPruner",
    "ThresholdPruner",
]
