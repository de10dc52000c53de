"""The strategies of a classifier: sampler, pruner, weighting and calibrator."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple, Self

from sklearn.base import clone

from .backends.base import Backend
from .errors import InputTypeError
from .pruners import PRUNERS, Pruner
from .samplers import SAMPLERS, ImportanceSampler, Sampler, StratifiedSampler
from .scoring import CALIBRATORS, WEIGHTINGS, Calibrator, FixedCalibrator, Scoring, Weighting
from .utils.constraints import check, check_parameters
from .utils.display import short_repr
from .utils.validation import check_option

# Base class, strategies by name, and default name of each kind of strategy.
KINDS: dict[str, tuple[type, dict[str, Any], str | None]] = {
    "sampler": (Sampler, SAMPLERS, "stratified"),
    "pruner": (Pruner, PRUNERS, "racing"),
    "weighting": (Weighting, WEIGHTINGS, "uniform"),
    "calibrator": (Calibrator, CALIBRATORS, None),
}


def resolve_strategy(kind: str, value: Any) -> Any:
    """Make a new, unfitted strategy from an estimator parameter.

    Parameters
    ----------
    kind : {"sampler", "pruner", "weighting", "calibrator"}
        The parameter's name.
    value : None, str, an instance of the kind's class or a number
        None for the default, a name, an instance, which is cloned, or the temperature of a
        calibrator.

    Returns
    -------
    Sampler, Pruner, Weighting, Calibrator or None
        The strategy; None only for ``calibrator=None``.

    Raises
    ------
    InputValueError
        If ``value`` is an unknown name, or a parameter of the instance has a value that it does
        not allow.
    InputTypeError
        If ``value`` is of another type.
    """
    base, known, default = KINDS[kind]
    if value is None:
        return None if default is None else known[default]()
    if isinstance(value, str):
        return known[check_option(kind, value, known)]()
    if kind == "calibrator" and isinstance(value, Real) and not isinstance(value, bool):
        check("calibrator", value, FixedCalibrator._constraints["value"])
        return FixedCalibrator(float(value))
    if isinstance(value, base):
        strategy = clone(value)
        check_parameters(strategy)
        return strategy
    is_class = any(value is cls for cls in known.values())
    raise InputTypeError(
        f"{kind}={short_repr(value)} must be a {base.__name__}, None, or one of "
        + ", ".join(map(repr, known))
        + (" (an instance, not the class)." if is_class else ".")
    )


def strategy_to_tune(kind: str, value: Any, backend: Backend | None, weighting: Any) -> Any:
    """Return the strategy whose parameters a user sets: the instance, or the default or named one.

    Parameters
    ----------
    kind : {"sampler", "pruner", "weighting", "calibrator"}
    value : None, str or an instance of the kind's class
        The estimator's parameter. An instance is returned as it is.
    backend : Backend or None
        The default sampler depends on it; None for a model in a folder, which has no proposal.
    weighting : str or Weighting
        The estimator's parameter, on which the default sampler depends too.

    Returns
    -------
    Sampler, Pruner, Weighting, Calibrator or None
        None only for ``calibrator=None``.
    """
    if kind == "sampler" and value is None and backend is not None:
        return default_sampler(backend, resolve_strategy("weighting", weighting))
    is_short = value is None or isinstance(value, str)
    is_number = kind == "calibrator" and isinstance(value, Real)
    return resolve_strategy(kind, value) if is_short or is_number else value


def default_sampler(backend: Backend, weighting: Weighting) -> Sampler:
    """Make the sampler of an estimator with ``sampler=None``.

    It is an ImportanceSampler if the backend has a default proposal, else a StratifiedSampler. The
    proposal is multiplied by the weights, or left as it is if they have yet to be learned.
    """
    proposal = backend.default_proposal
    if proposal is None:
        return StratifiedSampler()
    if not weighting.needs_record:
        proposal = proposal * weighting.weights(backend.schedule, backend.prediction_type)
    return ImportanceSampler(proposal=proposal)


class Strategies(NamedTuple):
    """The four strategies of a classifier, all of which can learn from labelled images."""

    weighting: Weighting
    sampler: Sampler
    pruner: Pruner
    calibrator: Calibrator | None

    @classmethod
    def resolve(
        cls, backend: Backend, *, weighting: Any, sampler: Any, pruner: Any, calibrator: Any
    ) -> Self:
        """Make new strategies from the estimator's parameters."""
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
        """Whether any strategy needs the errors of labelled images."""
        racing = (self.weighting, self.sampler, self.pruner)
        return self.learned_calibrator is not None or any(s.needs_record for s in racing)

    @property
    def learned_calibrator(self) -> Calibrator | None:
        """The calibrator, if it learns from labelled images."""
        calibrator = self.calibrator
        return calibrator if calibrator is not None and calibrator.needs_record else None

    def scoring(self, unweighted: Scoring, backend: Backend, loss: str) -> Scoring:
        """Return ``unweighted`` with the weights and temperature of these strategies."""
        schedule = backend.schedule
        weights = self.weighting.weights(schedule, backend.prediction_type)
        weighted = replace(unweighted, weights=weights)
        if self.calibrator is None:
            return weighted
        if not hasattr(self.calibrator, "log_temperature_"):  # it has not learned
            self.calibrator.prepare(self.weighting, weights, schedule, loss)
        return weighted.calibrated(self.calibrator)
