"""Errors that were recorded: the table of them, what its rows share, its file."""

from .setup import RecordSetup
from .table import ErrorTable

__all__ = ["ErrorTable", "RecordSetup"]
