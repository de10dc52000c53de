"""The race: rounds of draws, their errors, and who stays."""

from .loop import run_race
from .source import ErrorSource, Request, Result
from .tape import DrawTape

__all__ = ["DrawTape", "ErrorSource", "Request", "Result", "run_race"]
