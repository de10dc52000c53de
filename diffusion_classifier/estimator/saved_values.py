"""Conversion of this package's values to JSON and tensors, and back.

A value of a type that JSON lacks becomes an object whose first key names the type:
``{"tensor": name}``, ``{"tuple": [...]}``,
``{"class": "StagedPruner", "arguments": {...}, "learned": {...}}``. Only classes in a fixed list,
all from this package, are written or read, so reading runs no other code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..backends.base import Conditioning
from ..backends.exact.gaussian import GaussianBackend
from ..backends.exact.mixture import GaussianMixtureBackend
from ..errors import InputTypeError, InputValueError
from ..learner import Profile
from ..noise.schedule import NoiseSchedule
from ..pruners.base import Pruner
from ..samplers.base import Sampler
from ..scoring.calibration import Calibrator
from ..scoring.class_losses import Scoring
from ..scoring.weighting import Weighting

# Classes that are saved, along with their subclasses in this package.
KEPT_CLASSES: tuple[type, ...] = (
    Calibrator,
    Conditioning,
    GaussianBackend,
    GaussianMixtureBackend,
    NoiseSchedule,
    Profile,
    Pruner,
    Sampler,
    Scoring,
    Weighting,
)
PLAIN = (str, bool, int, float, type(None))


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
        return {
            "class": type(value).__name__,
            "arguments": encode_all(_constructor_arguments(value), name, tensors),
            "learned": encode_all(learned, name, tensors),
        }
    if hasattr(value, "__array__"):
        return _encode_array(np.asarray(value), name, tensors)
    raise InputTypeError(
        f"{name}={value!r} cannot be saved, because loading it would run code of "
        f"{type(value).__module__}.{type(value).__name__}; use a class of diffusion_classifier."
    )


def encode_all(values: Mapping[str, Any], name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Encode each value of a mapping; see :func:`encode`."""
    return {key: encode(item, f"{name}.{key}", tensors) for key, item in values.items()}


def _encode_array(array: np.ndarray, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Encode an array: numbers as a tensor, strings and objects as a list."""
    if array.dtype.kind in "biuf":
        tensors[name] = torch.from_numpy(np.array(array, order="C"))
        return {"array": name}
    items = encode(array.tolist(), name, tensors)
    return {"items": items, "dtype": array.dtype.str}


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild a value that :func:`encode` wrote.

    Raises
    ------
    InputValueError
        If it names a class that cannot be loaded.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(decode(value["tuple"], tensors))
    if "dict" in value:
        return dict(decode(value["dict"], tensors))
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "array" in value:
        return tensors[value["array"]].numpy()
    if "items" in value:
        return np.array(decode(value["items"], tensors), dtype=value["dtype"])
    known = _kept_classes()
    if value["class"] not in known:
        raise InputValueError(
            f"the class {value['class']!r} cannot be loaded; it must be one of {', '.join(known)}."
        )
    decoded = known[value["class"]](**decode_all(value["arguments"], tensors))
    for name, item in decode_all(value["learned"], tensors).items():
        setattr(decoded, name, item)
    return decoded


def decode_all(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Rebuild the values that :func:`encode_all` wrote."""
    return {name: decode(item, tensors) for name, item in values.items()}
