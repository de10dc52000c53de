"""What the value of a parameter stands for: strategies by name, backends by path."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from .backends.base import Backend
from .errors import InputTypeError
from .pruners import PRUNERS, Pruner
from .samplers import SAMPLERS, ImportanceSampler, Sampler, StratifiedSampler
from .scoring import CALIBRATORS, WEIGHTINGS, Calibrator, Weighting
from .utils.validation import check_option

_KINDS: dict[str, tuple[type, dict[str, Any], str | None]] = {
    "sampler": (Sampler, SAMPLERS, "stratified"),
    "pruner": (Pruner, PRUNERS, "racing"),
    "weighting": (Weighting, WEIGHTINGS, "uniform"),
    "calibrator": (Calibrator, CALIBRATORS, None),
}


def resolve_strategy(kind: str, value: Any) -> Any:
    """A fresh strategy from None (the default), a name, or an instance to be cloned.

    Parameters
    ----------
    kind : {"sampler", "pruner", "weighting", "calibrator"}
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
        return None if default is None else known[default]()
    if isinstance(value, str):
        return known[check_option(kind, value, known)]()
    if isinstance(value, base):
        return clone(value)
    raise InputTypeError(
        f"{kind}={value!r} must be a {base.__name__}, None, or one of {', '.join(map(repr, known))}"
        + (" (an instance, not the class)." if value in known.values() else ".")
    )


def default_sampler(backend: Backend, weighting: Weighting) -> Sampler:
    """The sampler of an estimator that names none: where the backend's classes differ, if known.

    Weights that are not yet learned are taken to be uniform.
    """
    proposal = backend.default_proposal
    if proposal is None:
        return StratifiedSampler()
    if not weighting.needs_record:
        proposal = proposal * weighting.weights(backend.schedule, backend.prediction_type)
    return ImportanceSampler(proposal=proposal)
