"""Constraints: what each parameter of a class may be, stated once, with one error for the rest.

A class lists its parameters in a table, ``_constraints = {"alpha": Reals(0, 1, "neither"), ...}``,
and :func:`check_parameters` compares an instance with it. A constraint writes its own message::

    alpha='x' must be a number > 0 and < 1.

``Integers(1) | None`` allows either.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputValueError
from .display import short_repr

# Above any useful number of draws, rounds or timesteps; more would take hours before the first
# answer, or memory that no machine has.
MANY = 100_000


class Constraint(ABC):
    """What a parameter may be; ``str`` of it completes the sentence "... must be"."""

    @abstractmethod
    def allows(self, value: Any) -> bool:
        """Return whether a value satisfies the constraint."""

    def problem(self, name: str, value: Any) -> str | None:
        """Return what is wrong with a value, as a sentence, or None."""
        if self.allows(value):
            return None
        return f"{name}={short_repr(value)} must be {self}."

    def __or__(self, other: Constraint | None) -> Constraint:
        return _Either(_parts(self) + _parts(_Nothing() if other is None else other))


class Integers(Constraint):
    """Integers from ``low`` to ``high``, both included; booleans are none."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def allows(self, value: Any) -> bool:
        if not _is_number(value) or value != int(value):
            return False
        return bool(self.low <= value) and (self.high is None or bool(value <= self.high))

    def __str__(self) -> str:
        if self.high is None:
            return "a positive integer" if self.low == 1 else f"an integer >= {self.low}"
        return f"an integer from {self.low} to {self.high}"


class Reals(Constraint):
    """Finite numbers from ``low`` to ``high``; ``closed`` says which bounds are included."""

    def __init__(
        self,
        low: float,
        high: float = math.inf,
        closed: Literal["both", "left", "right", "neither"] = "both",
    ) -> None:
        self.low, self.high = low, high
        self.with_low, self.with_high = closed in ("both", "left"), closed in ("both", "right")

    def allows(self, value: Any) -> bool:
        if not _is_number(value):
            return False
        above = value >= self.low if self.with_low else value > self.low
        below = value <= self.high if self.with_high else value < self.high
        return bool(above and below)

    def __str__(self) -> str:
        low = f"{'>=' if self.with_low else '>'} {self.low}"
        if self.high == math.inf:
            return "a finite number" + (f" {low}" if self.low > -math.inf else "")
        return f"a number {low} and {'<=' if self.with_high else '<'} {self.high}"


class Booleans(Constraint):
    """True and False, also numpy's."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, bool | np.bool_)

    def __str__(self) -> str:
        return "True or False"


class Options(Constraint):
    """One of several strings, or None if it is among them."""

    def __init__(self, *known: str | None) -> None:
        self.known = known

    def allows(self, value: Any) -> bool:
        return (value is None or isinstance(value, str)) and value in self.known

    def problem(self, name: str, value: Any) -> str | None:
        if self.allows(value):
            return None
        return f"{name}={short_repr(value)} is not known; use {self}."

    def __str__(self) -> str:
        return ("one of " if len(self.known) > 1 else "") + ", ".join(map(repr, self.known))


class InstancesOf(Constraint):
    """Instances of a class."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def allows(self, value: Any) -> bool:
        return isinstance(value, self.cls)

    def __str__(self) -> str:
        return f"a {self.cls.__name__}"


class Sequences(Constraint):
    """Lists, tuples, ranges and vectors of ``length`` items that satisfy one constraint."""

    def __init__(self, item: Constraint, length: int | None = None) -> None:
        self.item, self.length = item, length

    def allows(self, value: Any) -> bool:
        return self.problem("", value) is None

    def problem(self, name: str, value: Any) -> str | None:
        items = value.tolist() if isinstance(value, np.ndarray | Tensor) else value
        good = isinstance(items, list | tuple | range) and len(items) <= MANY
        if not good or self.length not in (None, len(items)):
            return f"{name}={short_repr(value)} must be {self}."
        problems = (self.item.problem(f"{name}[{i}]", item) for i, item in enumerate(items))
        return next(filter(None, problems), None)

    def __str__(self) -> str:
        length = "" if self.length is None else f" of length {self.length}"
        return f"a list or tuple{length}, each item {self.item}"


class Arrays(Constraint):
    """Finite numbers in an array of any shape, none below ``low``."""

    def __init__(self, low: float = -math.inf) -> None:
        self.low = low

    def allows(self, value: Any) -> bool:
        return self.problem("", value) is None

    def problem(self, name: str, value: Any) -> str | None:
        try:
            as_numbers(name, value, self.low)
        except InputValueError as error:
            return str(error)
        return None

    def __str__(self) -> str:
        return "an array of finite numbers"


class _Nothing(Constraint):
    """None."""

    def allows(self, value: Any) -> bool:
        return value is None

    def __str__(self) -> str:
        return "None"


class _Either(Constraint):
    """What any of several constraints allows."""

    def __init__(self, parts: tuple[Constraint, ...]) -> None:
        self.parts = parts

    def allows(self, value: Any) -> bool:
        return any(part.allows(value) for part in self.parts)

    def problem(self, name: str, value: Any) -> str | None:
        if self.allows(value):
            return None
        first, *others = self.parts
        if isinstance(first, Sequences | Arrays) and isinstance(others[0], _Nothing):
            return first.problem(name, value)  # which item is wrong
        return f"{name}={short_repr(value)} must be {self}."

    def __str__(self) -> str:
        *others, last = map(str, self.parts)
        return f"{', '.join(others)} or {last}"


def _parts(constraint: Constraint) -> tuple[Constraint, ...]:
    return constraint.parts if isinstance(constraint, _Either) else (constraint,)


Table = Mapping[str, Constraint]


def check(name: str, value: Any, constraint: Constraint) -> None:
    """Raise an InputValueError if a value does not satisfy a constraint."""
    if (problem := constraint.problem(name, value)) is not None:
        raise InputValueError(problem)


def check_parameters(instance: Any) -> None:
    """Check an instance's attributes against the table ``_constraints`` of its class, if any.

    Raises
    ------
    InputValueError
        Gives the parameter's name, its value and what is allowed.
    """
    for name, constraint in getattr(instance, "_constraints", {}).items():
        check(name, getattr(instance, name), constraint)


def check_entries(name: str, entries: Any, table: Table, optional: Collection[str] = ()) -> None:
    """Check that an object of a file has the keys of a table and no others, with allowed values.

    Parameters
    ----------
    name : str
        Where the object is, for messages.
    entries : object
    table : mapping of str to Constraint
    optional : collection of str
        Keys that may be missing.

    Raises
    ------
    InputValueError
        If ``entries`` is no mapping. Otherwise the message names the key.

    Examples
    --------
    >>> check_entries("setup", {"seed": 1, "code": "x"}, {"seed": Integers(0)})
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: setup has an unknown key 'code'; its keys are \
'seed'.
    """
    if not isinstance(entries, Mapping):
        raise InputValueError(f"{name}={short_repr(entries)} must have named entries.")
    unknown = next((key for key in entries if key not in table), None)
    if unknown is not None:
        known = ", ".join(map(repr, table)) or "none"
        raise InputValueError(
            f"{name} has an unknown key {short_repr(unknown)}; its keys are {known}."
        )
    for key, constraint in table.items():
        if key in entries:
            check(f"{name}.{key}", entries[key], constraint)
        elif key not in optional:
            raise InputValueError(f"{name} has no {key!r}.")


def as_numbers(name: str, value: Any, low: float = -math.inf) -> NDArray[np.float64]:
    """Convert an array-like to float64.

    Raises
    ------
    InputValueError
        If it holds anything but finite numbers that are at least ``low``.
    """
    try:
        masked = isinstance(value, np.ma.MaskedArray) and value.mask.any()
        raw = value.detach().cpu().double() if isinstance(value, Tensor) else value
        array = np.asarray(raw)
        if masked or value is None or array.dtype.kind not in "iufO":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputValueError(f"{name}={short_repr(value)} must be finite numbers.") from None
    bad = ~np.isfinite(array) | (array < low)
    if bad.any():
        index = tuple(np.argwhere(bad)[0].tolist())
        place = str(list(index)) if index else ""
        allowed = "finite" if low == -math.inf else f"finite and at least {low:g}"
        raise InputValueError(f"{name}{place}={array[index]} must be {allowed}.")
    return array


def _is_number(value: Any) -> bool:
    """Whether a value is a finite real number and no boolean."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False
