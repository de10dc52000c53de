"""Checks that stored results came from the same network and settings."""

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
    """Raise if a result was computed with another network or other settings.

    Parameters
    ----------
    subject : str
        Start of the message, such as ``"the table was"``.
    made_by : mapping
        Settings that the result was computed with.
    settings : mapping
        Settings of the classifier that wants to use the result.
    advice : str
        What the user can do, for the message.

    Raises
    ------
    InputValueError
        If the settings differ; the message lists the differences.

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
