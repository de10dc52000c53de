"""Errors that were recorded: the table of them, its certificate, its file."""

from .table import ErrorTable

__all__ = ["ErrorTable"]
