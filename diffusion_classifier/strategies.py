"""What the value of a parameter stands for: strategies by name, backends by path."""

from __future__ import annotations

import os
from typing import Any

from sklearn.base import clone

from .backends.base import Backend
from .calibration import CALIBRATORS, Calibrator
from .importance import ImportanceSampler
from .pruners import NoPruning, PairedTestPruner, Pruner, StagedPruner, ThresholdPruner
from .racing import RacingPruner
from .runtime import resolve_device, resolve_dtype
from .samplers import EvenSampler, Sampler, StratifiedSampler
from .validation import check_option
from .weighting import WEIGHTINGS, Weighting

SAMPLERS: dict[str, type[Sampler]] = {
    "stratified": StratifiedSampler,
    "importance": ImportanceSampler,
    "even": EvenSampler,
}
PRUNERS: dict[str, type[Pruner]] = {
    "none": NoPruning,
    "racing": RacingPruner,
    "paired": PairedTestPruner,
    "threshold": ThresholdPruner,
    "staged": StagedPruner,
}

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
    raise TypeError(
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


def resolve_backend(backend: Any, device: Any, dtype: Any) -> Backend:
    """A noise predictor from None (the embedded model), a path or Hub id, or a Backend.

    Named models are loaded once per process; a Backend is cloned, which shares its weights, and
    keeps its own device and dtype.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    device = resolve_device(device)
    dtype = resolve_dtype(dtype, device)
    if isinstance(backend, Backend):
        return clone(backend)
    if backend is not None and not isinstance(backend, str | os.PathLike):
        raise TypeError(
            f"backend={backend!r} must be None, the path or Hub id of a diffusers model, or a "
            "Backend; wrap a pipeline in memory as DiffusersBackend(pipeline)."
        )
    if backend is None:
        from .backends.embedded import load_embedded

        return load_embedded(device, dtype)
    from .backends.loading import load_backend

    return load_backend(os.fspath(backend), device, dtype)
