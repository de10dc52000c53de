"""Learning in ``fit(X, y)``: the weighting, sampler, pruner and calibrator learn from images.

The errors of at most ``n_fit_images`` images are recorded once, every prompt on every draw.
Strategies learn from this record. The temperature must suit races of *unseen* images, so the
record is split into folds, and each fold is raced with weights and a pruner learned from the
other folds.

Without images, the model can draw its own (:mod:`diffusion_classifier.estimator.self_teaching`).

A sampler that learns is fitted first, on a *pilot* record: a quarter of the draws, at uniform
timesteps. The main record is then made with the fitted sampler, as predictions will be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..pruners.base import NoPruning, Pruner
from ..records.table import ErrorTable
from ..samplers.stratified import StratifiedSampler
from ..scoring.calibration import (
    Calibrator,
    FixedCalibrator,
    NaturalCalibrator,
    TemperatureCalibrator,
    temperature,
)
from ..shortlist.base import BaseShortlist, learn_strength
from ..strategies import Strategies
from ..utils.constraints import check_parameters
from ..utils.validation import check_positive_integer
from .predicting import ModelOf, Predictor
from .self_teaching import draw_lesson

_FOLDS = 5
_PILOT_SHARE = 4  # the pilot record takes a quarter of the budget of draws


def learn_strategies(
    strategies: Strategies,
    X: Any,
    y: NDArray[Any],
    predictor: Predictor,
    n_images: int,
    seed: int,
    n_samples: int = 0,
) -> None:
    """Record the errors of some images and let strategies learn from them, if any needs to.

    Without images, strategies learn from those that the model draws, if it shall draw any. Else
    nothing is learned. A weighting, sampler or pruner that needs to learn raises later, when it is
    used.

    Parameters
    ----------
    strategies : Strategies
        Fitted in place.
    X : None, images or ErrorTable, of length N
        Must support indexing with an array.
    y : ndarray of shape (N,)
    predictor : Predictor
        Records errors, unweighted, with the strategies' sampler and budget.
    n_images : int
        Maximum number of images to record.
    seed : int
        Seed of the choice of images and of the folds.
    n_samples : int, default=0
        Number of images to draw if X is None. Then also strategies that can do without learn.

    Raises
    ------
    InputValueError
        If a calibrator has no images to learn from.
    """
    if X is None and n_samples:
        lesson = draw_lesson(predictor, n_samples, seed)
        return _learn_from_images(
            strategies, lesson.images, lesson.true_class, lesson.predictor, seed, are_drawn=True
        )
    if not strategies.needs_record:
        return None
    if X is None:
        if strategies.learned_calibrator is not None:
            raise InputValueError(
                f"calibrator={strategies.calibrator!r} learns from labelled images; call "
                "fit(X, y), set n_fit_samples=64 to learn from images that the model draws, or set "
                'calibrator="natural", which needs none.'
            )
        return None
    chosen = choose_images(y, n_images, seed)
    true_class = np.unique(y, return_inverse=True)[1][chosen]
    return _learn_from_images(strategies, X[chosen], true_class, predictor, seed)


def _learn_from_images(
    strategies: Strategies,
    images: Any,
    true_class: NDArray[Any],
    predictor: Predictor,
    seed: int,
    are_drawn: bool = False,
) -> None:
    """Record the errors of images and let all strategies learn from them."""
    budget = predictor.pruner.max_draws
    if strategies.sampler.needs_record:
        pilot = NoPruning(max(budget // _PILOT_SHARE, 2))
        budget -= pilot.max_draws if are_drawn else 0  # the budget of drawn images is a total
        table = record(replace(predictor, pruner=pilot, sampler=StratifiedSampler()), images)
        strategies.sampler.learn(*_learn_weights(strategies, table, true_class))
    table = record(replace(predictor, pruner=NoPruning(budget)), images)
    learn_from_table(strategies, table, true_class, seed, are_drawn=are_drawn)


def record(predictor: Predictor, X: Any) -> ErrorTable:
    """Record all errors of the images; an ErrorTable is checked, and all its classes race."""
    if not isinstance(X, ErrorTable):
        return predictor.table(X)
    X.setup.check_answers(predictor.setup, under_its_weights=False)
    return replace(X, candidates=None) if X.is_full else X


def learn_from_table(
    strategies: Strategies,
    table: ErrorTable,
    true_class: NDArray[Any],
    seed: int,
    *,
    are_drawn: bool = False,
) -> None:
    """Fit weighting, pruner and calibrator on a full table; ``seed`` determines the folds.

    From images that the model drew itself, calibrators learn only to be less sure.

    Raises
    ------
    InputValueError
        If the table is not full, that is, errors are missing.
    """
    strategies.pruner.learn(*_learn_weights(strategies, table, true_class))
    if are_drawn:
        _learn_humility(strategies, table, true_class, seed)
    elif strategies.learned_calibrator is not None:
        _learn_temperature(strategies, strategies.learned_calibrator, table, true_class, seed)


def _learn_weights(
    strategies: Strategies, table: ErrorTable, true_class: NDArray[Any]
) -> tuple[FitRecord, Tensor]:
    """Fit the weighting on a full table; return the FitRecord and the weights w(t)."""
    if not table.is_full:
        raise InputValueError(
            "the ErrorTable lacks errors of dropped prompts, but strategies learn from full "
            "tables; record it with errors(X, full=True)."
        )
    fit_images = fit_record(table, true_class)
    weighting = strategies.weighting.learn(fit_images)
    return fit_images, weighting.weights(table.schedule, table.prediction_type)


def _learn_temperature(
    strategies: Strategies,
    calibrator: Calibrator,
    table: ErrorTable,
    true_class: NDArray[Any],
    seed: int,
) -> None:
    """Fit the calibrator on held-out folds, twice: with priors, races depend on temperature."""
    folds = [
        (held_out, *_learned_without(strategies, held_out, table, true_class))
        for held_out in _folds(true_class, seed)
    ]
    order = np.concatenate([held_out for held_out, *_ in folds])
    log_prior = table.scoring.log_prior.numpy()
    log_temperature = (0.0, 0.0)
    for _ in range(2):
        losses, n_draws = [], []
        for held_out, pruner, weights in folds:
            scoring = replace(table.scoring, weights=weights, log_temperature=log_temperature)
            raced = table[held_out].race(pruner, scoring)
            n_draws.append(raced.n_draws.max(1))
            losses.append(_losses_without_prior(raced, n_draws[-1]))
        calibrator.learn(
            np.concatenate(losses), np.concatenate(n_draws), true_class[order], log_prior
        )
        log_temperature = calibrator.log_temperature_


def _learn_humility(
    strategies: Strategies, table: ErrorTable, true_class: NDArray[Any], seed: int
) -> None:
    """Raise the natural temperature by as much as the model misjudges its own drawings.

    It is never lowered: a model recognises its own drawings more easily than real images.
    """
    calibrator = strategies.calibrator
    if calibrator is None or isinstance(calibrator, FixedCalibrator):
        return
    natural = NaturalCalibrator()
    losses, n_draws, order = [], [], []
    for held_out in _folds(true_class, seed):
        pruner, weights = _learned_without(strategies, held_out, table, true_class)
        natural.prepare(strategies.weighting, weights, table.schedule, table.loss)
        scoring = replace(table.scoring, weights=weights).calibrated(natural)
        raced = table[held_out].race(pruner, scoring)
        losses.append((scoring.log_prior - raced.log_posterior()).numpy())  # doubted, in nats
        n_draws.append(raced.n_draws.max(1))
        order.append(held_out)
    own = TemperatureCalibrator().learn(
        np.concatenate(losses),
        np.concatenate(n_draws),
        true_class[np.concatenate(order)],
        table.scoring.log_prior.numpy(),
    )
    weights = strategies.weighting.weights(table.schedule, table.prediction_type)
    natural.prepare(strategies.weighting, weights, table.schedule, table.loss)
    level = natural.log_temperature_[0] + max(own.log_temperature_[0], 0.0)
    calibrator.log_temperature_, calibrator.unit_ = (level, 0.0), natural.unit


def _learned_without(
    strategies: Strategies, held_out: NDArray[Any], table: ErrorTable, true_class: NDArray[Any]
) -> tuple[Pruner, Tensor]:
    """Learn a pruner and weights from all images that are not held out."""
    others = np.setdiff1d(np.arange(len(table)), held_out)
    fit_images = fit_record(table[others], true_class[others])
    weighting = clone(strategies.weighting).learn(fit_images)
    weights = weighting.weights(table.schedule, table.prediction_type)
    return clone(strategies.pruner).learn(fit_images, weights), weights


def _losses_without_prior(table: ErrorTable, n_draws: NDArray[Any]) -> NDArray[np.float64]:
    """Return class losses [N, K] with the priors' share removed."""
    scoring = table.scoring
    scale = temperature(scoring.log_temperature, n_draws)[:, None]
    return table.class_losses().numpy() + scale * scoring.log_prior.numpy()


def fit_shortlist(
    shortlist: BaseShortlist | None,
    given: Any,
    X: Any,
    y: NDArray[Any],
    predictor: Predictor,
    n_images: int,
    seed: int,
) -> BaseShortlist | None:
    """Return a fitted copy of a shortlist, or None.

    A prior strength is learned by races among the candidates of some images, without it.

    Parameters
    ----------
    shortlist : BaseShortlist or None
        The classifier's parameter.
    given : None or images of length N
        What the user gave, which the proposer gets.
    X : None or images of length N
        The same, checked, for the network.
    y : ndarray of shape (N,)
        Labels, or the classes if X is None.
    predictor : Predictor
        Fitted, and without a shortlist.
    n_images, seed
        As for :func:`learn_strategies`.

    Raises
    ------
    InputValueError
        If the shortlist does not suit the classes, or has to learn and there are no images.
    """
    if shortlist is None:
        return None
    fitted, model = clone(shortlist), ModelOf(predictor)
    check_parameters(fitted)
    fitted.fit(None if isinstance(X, ErrorTable) else given, y, model)
    if fitted.prior_strength != "learned":
        fitted.prior_strength_ = float(fitted.prior_strength)
        return fitted
    if X is None or isinstance(X, ErrorTable):
        raise InputValueError(
            'prior_strength="learned" of the shortlist learns from labelled images; call '
            "fit(X, y) with images, or set a number."
        )
    chosen = choose_images(y, n_images, seed)
    true_class = np.searchsorted(model.classes, y[chosen])
    among, _ = fitted.candidates_from(fitted.propose_for_fit(given, chosen, model))
    log_posterior, _ = predictor.log_posterior(X[chosen], candidates=among.mask)
    log_prior = model.log_prior.numpy()
    fitted.prior_strength_ = learn_strength(log_posterior, among, true_class, log_prior)
    return fitted


def fit_record(table: ErrorTable, true_class: NDArray[Any]) -> FitRecord:
    """Make the record that strategies learn from: a table and each image's true class."""
    return FitRecord(
        errors=torch.as_tensor(table.errors),
        true_class=torch.as_tensor(true_class),
        class_of=table.scoring.class_of,
        timesteps=torch.as_tensor(table.timesteps),
        density=torch.as_tensor(table.density),
        round_of=torch.as_tensor(table.round_of),
        log_prior=table.scoring.log_prior,
        schedule=table.schedule,
        prediction_type=table.prediction_type,
    )


def choose_images(true_class: NDArray[Any], n_images: int, seed: int) -> NDArray[np.intp]:
    """Choose at most ``n_images`` images, stratified by class; returns sorted indices.

    Raises
    ------
    InputValueError
        If ``n_images`` is less than 2.
    """
    if check_positive_integer("n_fit_images", n_images) < 2:
        raise InputValueError("n_fit_images=1 is too few to learn from; give at least 2.")
    order = np.random.default_rng(seed).permutation(len(true_class))
    place = np.empty(len(order))
    for label in np.unique(true_class):
        members = order[true_class[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = order[np.argsort(place[order], kind="stable")][:n_images]
    return np.sort(chosen)


def _folds(true_class: NDArray[Any], seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield disjoint sets of image indices, stratified by class."""
    order = np.random.default_rng(seed).permutation(len(true_class))
    order = order[np.argsort(true_class[order], kind="stable")]
    n_folds = min(_FOLDS, len(order))
    for fold in range(n_folds):
        yield order[fold::n_folds]
