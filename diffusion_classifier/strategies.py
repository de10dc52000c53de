"""Strategies by name or instance, and the four that a classifier uses, together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Self

from sklearn.base import clone

from .backends.base import Backend
from .errors import InputTypeError
from .pruners import PRUNERS, Pruner
from .samplers import SAMPLERS, ImportanceSampler, Sampler, StratifiedSampler
from .scoring import CALIBRATORS, WEIGHTINGS, Calibrator, Scoring, Weighting
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


class Strategies(NamedTuple):
    """The four strategies of a classifier that can learn from labelled images."""

    weighting: Weighting
    sampler: Sampler
    pruner: Pruner
    calibrator: Calibrator | None

    @classmethod
    def resolve(
        cls, backend: Backend, *, weighting: Any, sampler: Any, pruner: Any, calibrator: Any
    ) -> Self:
        """New strategies from the estimator's parameters of these names."""
        chosen = resolve_strategy("weighting", weighting)
        return cls(
            weighting=chosen,
            sampler=default_sampler(backend, chosen)
            if sampler is None
            else resolve_strategy("sampler", sampler),
            pruner=resolve_strategy("pruner", pruner),
            calibrator=resolve_strategy("calibrator", calibrator),
        )

    @property
    def needs_record(self) -> bool:
        """Whether any of them asks for labelled images."""
        racing = (self.weighting, self.sampler, self.pruner)
        return self.calibrator is not None or any(s.needs_record for s in racing)

    def scoring(self, unweighted: Scoring, backend: Backend) -> Scoring:
        """The scoring under the weights and the temperature that were learned."""
        weights = self.weighting.weights(backend.schedule, backend.prediction_type)
        if self.calibrator is None:
            return replace(unweighted, weights=weights)
        return replace(
            unweighted, weights=weights, log_temperature=self.calibrator.log_temperature_
        )
