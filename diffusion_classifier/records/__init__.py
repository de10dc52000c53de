"""Recorded noise-prediction errors: the error table, its shared setup and its file format."""

from .setup import RecordSetup
from .table import ErrorTable

__all__ = ["ErrorTable", "RecordSetup"]
