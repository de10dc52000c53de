"""Strategies by name: what a string passed for a sampler, pruner or weighting stands for."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from .pruners import NoPruning, Pruner, StagedPruner
from .samplers import EvenSampler, Sampler, StratifiedSampler
from .weighting import WEIGHTINGS, Weighting

SAMPLERS: dict[str, type[Sampler]] = {"stratified": StratifiedSampler, "even": EvenSampler}
PRUNERS: dict[str, type[Pruner]] = {"none": NoPruning, "staged": StagedPruner}

_KINDS: dict[str, tuple[type, dict[str, Any], str]] = {
    "sampler": (Sampler, SAMPLERS, "stratified"),
    "pruner": (Pruner, PRUNERS, "staged"),
    "weighting": (Weighting, WEIGHTINGS, "uniform"),
}


def resolve_strategy(kind: str, value: Any) -> Any:
    """A fresh strategy from None (the default), a name, or an instance to be cloned.

    Parameters
    ----------
    kind : {"sampler", "pruner", "weighting"}
    value : None, str or an instance of the kind's class

    Raises
    ------
    ValueError
        If a name is not known; the message lists those that are.
    TypeError
        If it is anything else.
    """
    base, known, default = _KINDS[kind]
    if value is None:
        return known[default]()
    if isinstance(value, str):
        return known[check_option(kind, value, known)]()
    if isinstance(value, base):
        return clone(value)
    raise TypeError(
        f"{kind}={value!r} must be a {base.__name__}, None, or one of {', '.join(map(repr, known))}"
        + (" (an instance, not the class)." if value in known.values() else ".")
    )


def check_option(name: str, value: Any, known: Any) -> Any:
    """``value`` if it is one of the known ones; else a ValueError that lists them."""
    if value not in known:
        raise ValueError(
            f"{name}={value!r} is not known; use one of {', '.join(map(repr, known))}."
        )
    return value
