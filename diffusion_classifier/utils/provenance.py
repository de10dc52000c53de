"""What was computed with which network and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputValueError


def check_made_by(
    subject: str,
    made_by: Mapping[str, Any],
    settings: Mapping[str, Any],
    advice: str = "make it again",
) -> None:
    """Refuse what was computed with another network or other settings.

    Parameters
    ----------
    subject : str
        What it is, for the message.
    made_by : mapping
        Settings that it was made with.
    settings : mapping
        Those of the classifier that is to use it.
    advice : str
        What to do then, for the message.

    Raises
    ------
    ValueError
        If they differ; the message says in what.

    Examples
    --------
    >>> check_made_by("this table was", {"loss": "l1"}, {"loss": "l2"})
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: this table was made with loss='l1', this \
classifier has 'l2'; make it again.
    """
    changed = [
        f"{name}={made_by.get(name)!r}, this classifier has {settings.get(name)!r}"
        for name in sorted(set(made_by) | set(settings))
        if made_by.get(name) != settings.get(name)
    ]
    if changed:
        raise InputValueError(f"{subject} made with {'; '.join(changed)}; {advice}.")
