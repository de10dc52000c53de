"""Conversion of this package's values to JSON and tensors, and back.

A value of a type that JSON lacks becomes an object whose first key names the type:
``{"tensor": name}``, ``{"tuple": [...]}``,
``{"class": "StagedPruner", "arguments": {...}, "learned": {...}}``. Only classes in a fixed list,
all from this package, are written or read, so reading runs no other code. Their arguments are those
of their constructors, and what they learned is listed in
:mod:`diffusion_classifier.estimator.saving.format`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from inspect import Parameter, isabstract, signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from ...backends.base import Conditioning
from ...backends.exact.gaussian import GaussianBackend
from ...backends.exact.mixture import GaussianMixtureBackend
from ...errors import InputError, InputTypeError, InputValueError
from ...learner import Profile
from ...noise.schedule import NoiseSchedule
from ...pruners.base import Pruner
from ...samplers.base import Sampler
from ...scoring.calibration import Calibrator
from ...scoring.class_losses import Scoring
from ...scoring.weighting import Weighting
from ...shortlist import BaseShortlist
from ...shortlist.groups import Groups
from ...utils.constraints import check_entries, check_parameters
from ...utils.display import LONGEST_REPR, short_repr
from .format import ARGUMENTS, LATER_ARGUMENTS, check_learned

# Classes that are saved, along with their subclasses in this package.
KEPT_CLASSES: tuple[type, ...] = (
    BaseShortlist,
    Calibrator,
    Conditioning,
    GaussianBackend,
    GaussianMixtureBackend,
    Groups,
    NoiseSchedule,
    Profile,
    Pruner,
    Sampler,
    Scoring,
    Weighting,
)
PLAIN = (str, bool, int, float, type(None))
STRINGS = re.compile(r"[<>]U(\d{1,9})")  # dtypes of arrays that are written as lists
OBJECTS = re.compile(r"\|O|[<>][mM]8\[\w{1,9}\]")
MOST_CHARACTERS = 2**24  # of an array of strings: numpy gives each the length of the longest


def is_kept(value: Any) -> bool:
    """Whether a value's class can be saved and loaded."""
    return _kept_classes().get(type(value).__name__) is type(value)


def learned_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Select the attributes with a trailing underscore, which ``fit`` or ``learn`` set."""
    return {
        name: item
        for name, item in attributes.items()
        if name.endswith("_") and not name.startswith("_")
    }


def _kept_classes() -> dict[str, type]:
    """Return all classes that can be saved and loaded, by name."""
    package, found, queue = __name__.partition(".")[0], {}, list(KEPT_CLASSES)
    while queue:
        cls = queue.pop()
        if cls.__module__.partition(".")[0] == package:
            if not isabstract(cls):
                found[cls.__name__] = cls
            queue += cls.__subclasses__()
    return found


def _constructor_arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseEstimator):
        return value.get_params(deep=False)
    if isinstance(value, Conditioning):
        return value.tensors
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    return {name: item for name, item in vars(value).items() if not name.startswith("_")}


def encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Encode a value as JSON; arrays are added to ``tensors``, with keys that start with ``name``.

    Raises
    ------
    InputTypeError
        If the value is of a class that cannot be saved.
    InputValueError
        If a strategy has a learned attribute that its class does not have.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list):
        return [encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": encode(list(value), name, tensors)}
    if isinstance(value, Mapping):
        items = [[key, item] for key, item in value.items()]
        return {"dict": encode(items, name, tensors)}
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, torch.dtype | torch.device):
        return str(value).removeprefix("torch.")
    if is_kept(value):
        learned = learned_attributes(vars(value)) if isinstance(value, BaseEstimator) else {}
        check_learned(name, value, learned)
        return {
            "class": type(value).__name__,
            "arguments": encode_all(_constructor_arguments(value), name, tensors),
            "learned": encode_all(learned, name, tensors),
        }
    if hasattr(value, "__array__"):
        return _encode_array(np.asarray(value), name, tensors)
    raise InputTypeError(
        f"{name}={short_repr(value)} cannot be saved, because loading it would run code of "
        f"{type(value).__module__}.{type(value).__name__}; use a class of diffusion_classifier."
    )


def encode_all(values: Mapping[str, Any], name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Encode each value of a mapping; see :func:`encode`."""
    return {key: encode(item, f"{name}.{key}", tensors) for key, item in values.items()}


def _encode_array(array: np.ndarray, name: str, tensors: dict[str, Tensor]) -> Any:
    """Encode an array: numbers as a tensor, strings and objects as a list."""
    if array.dtype.kind in "biuf":
        tensors[name] = torch.from_numpy(np.array(array, order="C"))
        return {"array": name}
    items = encode(array.tolist(), name, tensors)
    if array.ndim != 1:
        return items
    if array.dtype.kind == "U" and array.size * (array.itemsize // 4) > MOST_CHARACTERS:
        array = np.array(items)  # no wider than the longest string
    return {"items": items, "dtype": array.dtype.str}


class Decoder:
    """Rebuild what :func:`encode` wrote, and refuse everything else.

    Every method takes the name that :func:`encode` was given. It says in messages where a value is,
    and a tensor must have the name of the place that asks for it.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Each must be asked for once.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._left = dict(tensors)
        self._kinds: dict[tuple[str, ...], Callable[[dict[str, Any], str], Any]] = {
            ("tuple",): lambda entry, name: tuple(self._list(entry["tuple"], name)),
            ("dict",): self._dict,
            ("tensor",): lambda entry, name: self._tensor(entry["tensor"], name),
            ("array",): self._array,
            ("dtype", "items"): self._items,
            ("arguments", "class", "learned"): self._instance,
        }

    def values(self, values: Any, name: str) -> dict[str, Any]:
        """Rebuild the values that :func:`encode_all` wrote.

        Raises
        ------
        InputValueError
            The message names the value that is not as :func:`encode` writes it.
        """
        if not isinstance(values, dict):
            raise InputValueError(f"{_short(name)}={short_repr(values)} must have named entries.")
        return {key: self.value(item, f"{name}.{key}") for key, item in values.items()}

    def value(self, value: Any, name: str) -> Any:
        """Rebuild a value that :func:`encode` wrote.

        Raises
        ------
        InputValueError
            As :meth:`values` does.
        """
        if isinstance(value, list):
            return [self.value(item, f"{name}.{i}") for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        rebuild = self._kinds.get(tuple(sorted(value)) if len(value) <= 3 else ())
        if rebuild is None:
            known = ", ".join("+".join(keys) for keys in self._kinds)
            raise InputValueError(
                f"{_short(name)} has the keys {short_repr(list(value))}; its keys must be one of "
                f"{known}."
            )
        return rebuild(value, name)

    def check_all_used(self) -> None:
        """Raise an InputValueError if a tensor was not asked for."""
        for name in self._left:
            raise InputValueError(f"the tensor {short_repr(name)} is left over.")

    def _list(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise InputValueError(f"{_short(name)}={short_repr(value)} must be a list.")
        return self.value(value, name)

    def _dict(self, entry: dict[str, Any], name: str) -> dict[Any, Any]:
        pairs = self._list(entry["dict"], name)
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], PLAIN):
                raise InputValueError(f"{_short(name)} must be pairs of a key and a value.")
        found = dict(pairs)
        if len(found) < len(pairs):
            raise InputValueError(f"{_short(name)} has a key twice.")
        return found

    def _tensor(self, key: Any, name: str) -> Tensor:
        if key != name or name not in self._left:
            raise InputValueError(
                f"{_short(name)} asks for the tensor {short_repr(key)}, which is missing or "
                "belongs elsewhere."
            )
        found = self._left.pop(name)
        if found.is_floating_point() and bool(found.isnan().any()):
            raise InputValueError(f"{_short(name)} holds NaN.")
        return found

    def _array(self, entry: dict[str, Any], name: str) -> NDArray[Any]:
        found = self._tensor(entry["array"], name)
        try:
            return found.numpy()
        except TypeError as error:  # numpy has no bfloat16, for example
            raise InputValueError(f"{_short(name)} has the dtype {found.dtype}.") from error

    def _items(self, entry: dict[str, Any], name: str) -> NDArray[Any]:
        items, dtype = self._list(entry["items"], name), entry["dtype"]
        good = isinstance(dtype, str) and all(isinstance(item, PLAIN) for item in items)
        if good and (match := STRINGS.fullmatch(dtype)):
            width = int(match[1])
            good = len(items) * width <= MOST_CHARACTERS and all(
                isinstance(item, str) and len(item) <= width for item in items
            )
        elif good:
            good = OBJECTS.fullmatch(dtype) is not None
        try:
            if good:
                return np.array(items, dtype=dtype)
        except (OverflowError, TypeError, ValueError):
            pass
        raise InputValueError(
            f"{_short(name)} must be plain values of its dtype, {short_repr(dtype)}."
        )

    def _instance(self, entry: dict[str, Any], name: str) -> Any:
        kind, known = entry["class"], _kept_classes()
        if not isinstance(kind, str) or kind not in known:
            raise InputValueError(
                f"{_short(name)}: the class {short_repr(kind)} cannot be loaded; it must be one of "
                f"{', '.join(known)}."
            )
        cls = known[kind]
        arguments = self.values(entry["arguments"], name)
        _check_arguments(_short(name), cls, arguments)
        try:
            instance = cls(**arguments)
            check_parameters(instance)
        except InputError as error:
            raise InputValueError(f"{_short(name)}: {error}") from error
        learned = self.values(entry["learned"], name)
        check_learned(_short(name), instance, learned)
        for key, item in learned.items():
            setattr(instance, key, item)
        return instance


def _check_arguments(name: str, cls: type, arguments: Mapping[str, Any]) -> None:
    """Raise an InputValueError unless a class can be constructed from these arguments."""
    if cls in ARGUMENTS:
        check_entries(name, arguments, ARGUMENTS[cls], LATER_ARGUMENTS)
    elif cls is Conditioning:
        for key, item in arguments.items():
            if not isinstance(item, Tensor) or not item.ndim or not key.isidentifier():
                raise InputValueError(f"{name} has an entry {short_repr(key)} that is no tensor.")
    else:
        for key, parameter in signature(cls).parameters.items():
            if key not in arguments and parameter.default is Parameter.empty:
                raise InputValueError(f"{name} has no {key!r}.")
        for key in arguments:
            if key not in signature(cls).parameters:
                raise InputValueError(f"{name} has an unknown key {short_repr(key)}.")


def _short(name: str) -> str:
    """Shorten a name that a file may have made up."""
    return name if len(name) <= LONGEST_REPR else f"{name[:48]}...{name[-48:]}"
