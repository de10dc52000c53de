"""The race: classes compete on rounds of draws, and a pruner drops losing ones after each round."""

from .loop import run_race
from .source import ErrorSource, Request, Result, Start
from .tape import DrawTape

__all__ = ["DrawTape", "ErrorSource", "Request", "Result", "Start", "run_race"]
