"""The steps of ``fit`` and ``predict``, each given what it needs."""

__all__: list[str] = []
