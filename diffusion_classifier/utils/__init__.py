"""What any room may use: checks of values, devices, locks, display."""

__all__: list[str] = []
