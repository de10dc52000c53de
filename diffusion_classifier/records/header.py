"""The header of a table's file: what all its rows share, as JSON.

A file may come from anywhere. Reading accepts the keys and types that writing emits, and no
others, before any value is used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedFileError
from ..utils.constraints import (
    Booleans,
    InstancesOf,
    Integers,
    Reals,
    Sequences,
    check_entries,
)
from ..utils.display import short_repr
from .setup import RecordSetup

PER_DRAW = ("timesteps", "density", "round_of", "antithetic")

_Text, _Integer, _Number = InstancesOf(str), Integers(-(2**63), 2**63 - 1), Reals(-math.inf)
_Numbers = Sequences(_Number)
_SCORING = {
    "weights": _Numbers,
    "log_prior": _Numbers,
    "class_of": Sequences(_Integer),
    "reduction": _Text,
    "log_temperature": _Numbers,
    "unit": _Text,
}
_SCHEDULE = {"alpha": _Numbers, "sigma": _Numbers}
_KEYS = {
    "timesteps": Sequences(_Integer),
    "density": _Numbers,
    "round_of": Sequences(_Integer),
    "antithetic": Sequences(Booleans()),
    "scoring": InstancesOf(dict),
    "schedule": InstancesOf(dict),
    "prediction_type": _Text,
    "loss": _Text,
    "classes": Sequences(_Text | Booleans() | _Number),
    "classes_dtype": _Text,
    "prompts": Sequences(_Text),
    "seed": _Integer,
    "alpha": InstancesOf(float),  # may be NaN
    "made_by": InstancesOf(dict) | None,
    "n_images": Integers(0),
    "skipped": InstancesOf(dict),
    "prior_strength": Reals(0) | None,
    "proposal_has_prior": Booleans(),
}
# files of earlier releases lack them
_OPTIONAL = ("n_images", "skipped", "prior_strength", "proposal_has_prior")
_DTYPE = re.compile(r"[<>|=]?(b1|[iuf][1248]|f16|O|U\d{1,6})")
_WIDEST_LABEL = 4096  # characters; a label that the file holds may be longer
_DEEPEST = 20  # levels of the network's identity


@dataclass(frozen=True)
class Header:
    """What all rows of a table's file share.

    Attributes
    ----------
    setup : RecordSetup
    per_draw : dict
        Arrays of shape (J,) under the names in ``PER_DRAW``.
    n_images : int or None
        None for files of earlier releases, which do not state it.
    skipped : tuple of (int, str)
    prior_strength : float or None
        That of the candidates; None if all classes raced.
    proposal_has_prior : bool
        Whether the proposer's log probabilities contain the priors of the classes.
    """

    setup: RecordSetup
    per_draw: Mapping[str, NDArray[Any]]
    n_images: int | None
    skipped: tuple[tuple[int, str], ...] = ()
    prior_strength: float | None = None
    proposal_has_prior: bool = False

    @property
    def n_draws(self) -> int:
        """The number of draws J."""
        return len(self.per_draw["timesteps"])

    def to_json(self) -> str:
        """Write the header."""
        values: dict[str, Any] = {name: self.per_draw[name].tolist() for name in PER_DRAW}
        values |= self.setup.to_json()
        values["n_images"] = self.n_images
        values["skipped"] = dict(self.skipped)
        if self.prior_strength is not None:
            values["prior_strength"] = self.prior_strength
        if self.proposal_has_prior:
            values["proposal_has_prior"] = True
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: bytes) -> Header:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        DamagedFileError
            If it is no JSON, or its labels do not have their dtype.
        InputValueError
            If a key or type is not one that :meth:`to_json` writes, or the setup is not
            consistent.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(f"the header is not valid JSON ({short_repr(error)}).") from None
        check_entries("header", values, _KEYS, _OPTIONAL)
        check_entries("header.scoring", values["scoring"], _SCORING, optional=("unit",))
        check_entries("header.schedule", values["schedule"], _SCHEDULE)
        if _depth(values["made_by"]) > _DEEPEST:
            raise DamagedFileError(f"header.made_by has more than {_DEEPEST} levels.")
        _check_labels(values["classes"], values["classes_dtype"])
        skipped = values.get("skipped", {})
        for image, reason in skipped.items():
            if not (re.fullmatch(r"\d{1,12}", image) and isinstance(reason, str)):
                raise DamagedFileError(
                    f"header.skipped has {short_repr(image)}: {short_repr(reason)}, but needs an "
                    "image and a reason."
                )
        return cls(
            RecordSetup.from_json(values),
            {name: np.array(values[name]) for name in PER_DRAW},
            values.get("n_images"),
            tuple((int(image), reason) for image, reason in skipped.items()),
            values.get("prior_strength"),
            values.get("proposal_has_prior", False),
        )


def _check_labels(labels: list[Any], dtype: str) -> None:
    """Raise unless labels can have a dtype, which must not ask for more memory than they need."""
    longest = max((len(str(label)) for label in labels), default=0)
    good = _DTYPE.fullmatch(dtype) is not None
    if good and "U" in dtype:
        good = int(dtype.split("U")[1]) <= max(longest, _WIDEST_LABEL)
    try:
        good = good and np.array(labels, dtype).tolist() == labels
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise DamagedFileError(
            f"header.classes={short_repr(labels)} does not have dtype {short_repr(dtype)}."
        )


def _depth(value: Any) -> int:
    """Return how many levels of dicts and lists a JSON value has, at most one above the limit."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level]
        level = [item for items in inner if isinstance(items, list) for item in items]
        depth += 1
    return depth
