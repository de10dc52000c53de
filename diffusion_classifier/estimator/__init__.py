"""The steps of ``DiffusionClassifier.fit`` and ``predict``, one per module."""

__all__: list[str] = []
