"""Checks of parameter values; messages give the name, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from .constraints import Integers, Options, check

Result = TypeVar("Result")


def check_option(name: str, value: Any, known: Any) -> Any:
    """Return ``value`` if it is among the known values; else raise an InputValueError."""
    check(name, value, Options(*known))
    return value


def check_positive_integer(name: str, value: Any) -> int:
    """Return ``value`` as an int; raise an InputValueError if it is not a positive integer."""
    check(name, value, Integers(1))
    return int(value)


def all_or_nothing(method: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a method to restore its object's attributes if it raises."""

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
