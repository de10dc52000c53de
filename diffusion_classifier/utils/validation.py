"""Checks of parameter values that name the parameter, the value and what would do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ..errors import InputValueError

Result = TypeVar("Result")


def check_option(name: str, value: Any, known: Any) -> Any:
    """``value`` if it is one of the known ones; else a ValueError that lists them."""
    if value not in known:
        raise InputValueError(
            f"{name}={value!r} is not known; use one of {', '.join(map(repr, known))}."
        )
    return value


def check_positive_integer(name: str, value: Any) -> int:
    """``value`` as an int; a ValueError that names it if it is not a positive integer."""
    try:
        good = not isinstance(value, bool) and int(value) == value and value > 0
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise InputValueError(f"{name}={value!r} must be a positive integer.")
    return int(value)


def all_or_nothing(method: Callable[..., Result]) -> Callable[..., Result]:
    """Make a method that fails leave its object as it was before."""

    @wraps(method)
    def attempt(self: Any, *args: Any, **options: Any) -> Result:
        before = dict(vars(self))
        try:
            return method(self, *args, **options)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return attempt
