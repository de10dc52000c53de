"""Utilities used throughout the package: value checks, devices, locks, display."""

__all__: list[str] = []
