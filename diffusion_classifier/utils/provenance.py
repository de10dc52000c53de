"""Checks that stored results came from the same network and settings, and that it stayed so."""

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
        f"{name}={then!r}, this classifier has {now!r}"
        for name, then, now in _differences(made_by, settings)
    ]
    if changed:
        raise InputValueError(f"{subject} made with {'; '.join(changed)}; {advice}.")


def check_unchanged(fitted_with: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise if a network is not what it was when a classifier was fitted.

    Parameters
    ----------
    fitted_with, identity : mapping
        The network's identity at ``fit`` and now.

    Raises
    ------
    InputValueError
        If they differ; the message lists the differences.

    Examples
    --------
    >>> check_unchanged({"name": "a"}, {"name": "a", "changes": "unet: adapter toy at scale 0.5"})
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: the network has changed since fit: changes was \
None, is now 'unet: adapter toy at scale 0.5'; call fit again, or undo the change.
    """
    changed = [
        f"{name} was {then!r}, is now {now!r}"
        for name, then, now in _differences(fitted_with, identity)
    ]
    if changed:
        raise InputValueError(
            f"the network has changed since fit: {'; '.join(changed)}; call fit again, or undo "
            "the change."
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return name and both values of each setting that differs."""
    names = {name for name in {*then, *now} if then.get(name) != now.get(name)}
    if "changes" in names:  # they are in the hash, and say more
        names.discard("config_sha256")
    return [(name, then.get(name), now.get(name)) for name in sorted(names)]
