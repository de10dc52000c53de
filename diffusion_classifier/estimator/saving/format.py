"""What a saved classifier holds: closed lists of keys and types, the same to write and to read.

Anything that is not in these lists is neither written nor read. The parameters of classes are not
repeated here: they are those of their constructors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backends.base import Backend, Conditioning
from ...backends.exact.base import MixtureBackend
from ...backends.function import FunctionBackend
from ...errors import InputValueError
from ...images.resize import RESIZE_MODES
from ...learner import Profile
from ...noise.schedule import NoiseSchedule
from ...pruners import Pruner, RacingPruner, RiskControlledPruner, ThresholdPruner
from ...samplers import ImportanceSampler, Sampler
from ...scoring import Calibrator, Scoring, Weighting
from ...scoring.class_losses import LOSS_NAMES, PROMPT_REDUCTIONS
from ...scoring.natural import UNITS
from ...scoring.weighting import FittedWeighting
from ...shortlist import BaseShortlist, ClipShortlist
from ...shortlist.groups import Groups, GroupShortlist
from ...utils.constraints import (
    Constraint,
    InstancesOf,
    Integers,
    Options,
    Reals,
    Sequences,
    Table,
    check_entries,
)
from ...utils.display import short_repr
from ..settings import check_variance
from .shortlists import check_shortlist

FORMAT = "diffusion_classifier"
FORMAT_VERSION = 1
DEEPEST = 32  # levels of lists and objects; what fit learns and users pass takes about 12


class Numbers(Constraint):
    """A tensor, or an array if ``kind`` is ndarray, of a dtype and a number of axes.

    Its numbers are finite and at least ``low``, or any if ``low`` is None.
    """

    def __init__(
        self, dtype: str, ndim: int, low: float | None = -math.inf, kind: type = Tensor
    ) -> None:
        self.dtype, self.ndim, self.low, self.kind = dtype, ndim, low, kind

    def allows(self, value: Any) -> bool:
        if not isinstance(value, self.kind):
            return False
        numbers = torch.as_tensor(value)
        if numbers.ndim != self.ndim or _dtype(numbers) != self.dtype:
            return False
        if self.low is None:
            return True
        return bool((numbers.isfinite() & (numbers >= self.low)).all())

    def problem(self, name: str, value: Any) -> str | None:
        if self.allows(value):
            return None
        found = type(value).__name__
        if isinstance(value, Tensor | np.ndarray):
            found = f"{_dtype(value)} of shape {tuple(value.shape)}"
        return f"{name} ({found}) must be {self}."

    def __str__(self) -> str:
        low = "" if self.low in (None, -math.inf) else f" and at least {self.low:g}"
        finite = "" if self.low is None else f", finite{low}"
        return f"{self.dtype} with {self.ndim} {'axis' if self.ndim == 1 else 'axes'}{finite}"


def _dtype(value: Tensor | np.ndarray) -> str:
    return str(value.dtype).removeprefix("torch.")


class Labels(Constraint):
    """One-dimensional arrays of labels."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.ndim == 1 and len(value) > 0

    def __str__(self) -> str:
        return "an array of labels"


class Prompts(Constraint):
    """Objects that list the prompts of each label."""

    def allows(self, value: Any) -> bool:
        return isinstance(value, dict) and all(
            isinstance(prompts, list) and prompts and all(type(p) is str for p in prompts)
            for prompts in value.values()
        )

    def __str__(self) -> str:
        return "a list of prompts for each label"


class Source(Constraint):
    """Where on the Hub a classifier was loaded from: the repository and the commit."""

    def allows(self, value: Any) -> bool:
        return (
            isinstance(value, dict)
            and set(value) == {"repo_id", "revision"}
            and all(type(text) is str for text in value.values())
        )

    def __str__(self) -> str:
        return "a repo_id and a revision"


_LEVEL = Numbers("float64", 1, low=0)
_LOG_TEMPERATURE = Sequences(Reals(-700, 700), length=2)  # exp of more overflows
_TEXT = InstancesOf(str)
_OBJECT = InstancesOf(dict)
_ANYTHING = InstancesOf(object)

STATE: Table = {  # the whole JSON file
    "format": _TEXT,
    "format_version": Integers(0),
    "package_version": _TEXT,
    "backbone": _OBJECT,
    "backbone_dtype": _TEXT,
    "backend": _OBJECT,
    "parameters": _OBJECT,
    "fitted": _OBJECT,
    "sha256": _OBJECT,
}
BACKEND: Table = {
    "kind": Options("memory", "name", "origin", "parameters"),
    "value": _OBJECT | _TEXT | None,
    "learned": _OBJECT,
}
KIND_OF_VALUE: Table = {  # of the backend, by its kind
    "memory": _TEXT,
    "name": _TEXT | None,
    "origin": _OBJECT,
    "parameters": InstancesOf(Backend),
}
FITTED: Table = {  # attributes that fit sets, apart from backend_
    "loss_": Options(*LOSS_NAMES),
    "image_size_": Sequences(Integers(1, 2**16), length=2) | None,
    "resize_": Options(*RESIZE_MODES),
    "n_features_in_": Integers(1),
    "feature_names_in_": Labels(),
    "classes_": Labels(),
    "prompts_": Prompts(),
    "weighting_": InstancesOf(Weighting),
    "sampler_": InstancesOf(Sampler),
    "pruner_": InstancesOf(Pruner),
    "calibrator_": InstancesOf(Calibrator) | None,
    "shortlist_": InstancesOf(BaseShortlist),
    "hub_": Source(),
    "seed_": Integers(0, 2**31 - 1),
    "_condition": InstancesOf(Conditioning),
    "_scoring": InstancesOf(Scoring),
}
# depend on X, on the parameters, and on whether it was loaded from the Hub
OPTIONAL = ("n_features_in_", "feature_names_in_", "shortlist_", "hub_")
ARGUMENTS: dict[type, Table] = {  # of constructors that keep what they are given unchecked
    Groups: {
        "members": Numbers("int64", 1, low=0),
        "prompts": Sequences(_TEXT),
        "class_of": Numbers("int64", 1, low=0),
        "condition": InstancesOf(Conditioning),
    },
    NoiseSchedule: {"alpha": _LEVEL, "sigma": _LEVEL},
    Profile: {"mean": _LEVEL, "variance": _LEVEL, "n_images": Integers(1)},
    Scoring: {
        "weights": _LEVEL,
        "log_prior": Numbers("float64", 1),
        "class_of": Numbers("int64", 1, low=0),
        "reduction": Options(*PROMPT_REDUCTIONS),
        "log_temperature": _LOG_TEMPERATURE,
        "unit": Options(*UNITS),
    },
}
LATER_ARGUMENTS = ("unit",)  # files of earlier releases lack them
LEARNED: dict[type, Table] = {  # attributes that fit or learn sets, by class or base class
    Calibrator: {"log_temperature_": _LOG_TEMPERATURE, "unit_": Options(*UNITS)},
    BaseShortlist: {"prior_strength_": Reals(0)},
    ClipShortlist: {
        "text_features_": Numbers("float32", 2),
        "scale_": Reals(0),
        "identity_": _OBJECT,
    },
    GroupShortlist: {"groups_": Sequences(InstancesOf(Groups))},
    FittedWeighting: {"weights_": _LEVEL},
    ImportanceSampler: {"proposal_": _LEVEL},
    RacingPruner: {
        "deviation_": Reals(0),
        "prior_rounds_": Reals(0),
        "round_size_": Integers(1),
        "screen_": Reals(0),
        "screened_rivals_": Integers(0),
    },
    RiskControlledPruner: {
        "threshold_": Reals(0),
        "deviation_": Reals(0),
        "round_size_": Integers(1),
        "n_draws_": Integers(1),
    },
    ThresholdPruner: {"threshold_": Reals(0)},
    FunctionBackend: {"classes_": Labels()},
    MixtureBackend: {
        "classes_": Labels(),
        "center_": Numbers("float64", 1, kind=np.ndarray),
        "scale_": Numbers("float64", 1, low=0, kind=np.ndarray),
        "means_": Numbers("float64", 3),
        "variances_": Numbers("float64", 3, low=0),
        "log_weights_": Numbers("float64", 2, low=None),  # -inf for a weight of 0
        "latent_rotation_": Numbers("float64", 2) | None,
        "class_rotations_": Numbers("float64", 3) | None,
    },
}
LATER_LEARNED = ("screen_", "screened_rivals_", "unit_")  # files of earlier releases lack them


def check_keys(name: str, entries: Any, known: Collection[str]) -> None:
    """Raise an InputValueError if an object is none, or has a key that is not known."""
    check_entries(name, entries, dict.fromkeys(known, _ANYTHING), known)


def check_learned(name: str, owner: Any, learned: Any) -> None:
    """Check what a strategy or backend learned: nothing, or all that the list of its class has.

    A backend of a class from outside this package may have any attributes of its own that end in
    an underscore.

    Raises
    ------
    InputValueError
        The message names the attribute.
    """
    cls = type(owner)
    if cls.__module__.partition(".")[0] == FORMAT:
        table: dict[str, Constraint] = {}
        for base, of_base in LEARNED.items():
            table |= of_base if issubclass(cls, base) else {}
        return check_entries(name, learned, table if learned else {}, LATER_LEARNED)
    for key in learned:
        method = callable(getattr(cls, key, None))
        if method or not key.isidentifier() or key.startswith("_") or not key.endswith("_"):
            raise InputValueError(f"{name} has an unknown key {short_repr(key)}.")
    return None


def check_depth(state: Any) -> None:
    """Raise an InputValueError if lists and objects are nested deeper than any save writes."""
    level = [state]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, list | dict)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise InputValueError(f"lists or objects are nested more than {DEEPEST} levels deep.")


def check_fitted(fitted: Mapping[str, Any], backend: Backend) -> None:
    """Check that fitted attributes have their types and belong together.

    Raises
    ------
    InputValueError
        The message names the attribute.
    """
    check_entries("fitted", fitted, FITTED, OPTIONAL)
    check_variance(backend, fitted["loss_"])
    labels, prompts, condition = (fitted[key] for key in ("classes_", "prompts_", "_condition"))
    if list(prompts) != labels.tolist():
        raise InputValueError("fitted.prompts_ must name the labels of fitted.classes_, in order.")
    scoring = fitted["_scoring"]
    if bool((scoring.class_of >= len(labels)).any()):
        raise InputValueError(f"fitted._scoring.class_of must be below {len(labels)}.")
    counts = scoring.class_of.bincount(minlength=len(labels)).tolist()
    averaged = counts == [1] * len(labels)  # the prompts of each class share a condition
    if not averaged and [len(of_class) for of_class in prompts.values()] != counts:
        raise InputValueError("fitted._scoring.class_of does not fit the prompts of each label.")
    if len(condition) != sum(counts):
        raise InputValueError(
            f"fitted._condition has {len(condition)} rows for {sum(counts)} prompts."
        )
    check_shortlist(fitted.get("shortlist_"), len(labels))
    total = float(scoring.log_prior.exp().sum())
    if len(scoring.log_prior) != len(labels) or abs(total - 1) > 1e-6:
        raise InputValueError(
            f"fitted._scoring.log_prior must be {len(labels)} logarithms of probabilities that sum "
            "to 1."
        )
    if isinstance(backend, MixtureBackend):
        _check_components(backend, labels)
        expected = backend.encode_classes(np.repeat(labels, counts).tolist(), [])["class_index"]
        found = condition.tensors.get("class_index")
        if found is None or found.dtype != expected.dtype or not torch.equal(found, expected):
            raise InputValueError("fitted._condition.class_index does not fit the labels.")


def _check_components(backend: MixtureBackend, labels: Any) -> None:
    """Raise unless all that an exact backend learned has one number of classes and features."""
    if not np.array_equal(getattr(backend, "classes_", []), labels):
        raise InputValueError("backend.learned.classes_ must be the labels of fitted.classes_.")
    n_components, n_features = backend.means_.shape[1], len(backend.center_)
    sizes = (len(labels), n_components, n_features)
    shapes: dict[str, set[tuple[int, ...]]] = {
        "scale_": {(n_features,)},
        "means_": {sizes},
        "variances_": {(k, m, n_features) for k in (1, sizes[0]) for m in (1, sizes[1])},
        "log_weights_": {sizes[:2]},
        "latent_rotation_": {(n_features, n_features)},
        "class_rotations_": {(sizes[0], n_features, n_features)},
    }
    for name, known in shapes.items():
        value = getattr(backend, name)
        if value is not None and tuple(value.shape) not in known:
            raise InputValueError(
                f"backend.learned.{name} has shape {tuple(value.shape)}, which does not fit "
                f"{sizes[0]} classes of {n_components} components and {n_features} features."
            )
