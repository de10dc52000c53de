"""What ``fit(X, y)`` learns from labelled images: weights, sampler, pruner, then temperature.

Errors of at most ``n_fit_images`` images are recorded once, every prompt on every draw. Strategies
learn from that record. The temperature is for races of *unseen* images, so the record is cut into
folds, and each fold is raced with weights and pruner learned from the others.

A sampler that learns comes first, from a *pilot*: a quarter of the draws, at uniform timesteps.
The record is then made with the draws that it proposes, as predictions will be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from ..backends.base import Backend
from ..errors import InputValueError
from ..learner import FitRecord
from ..pruners.base import Pruner
from ..records.table import ErrorTable
from ..samplers.base import Sampler
from ..scoring.calibration import Calibrator
from ..scoring.class_losses import Scoring
from ..scoring.weighting import Weighting
from ..strategies import default_sampler, resolve_strategy
from ..utils.validation import check_positive_integer

_FOLDS = 5


class Strategies(NamedTuple):
    """All that can learn."""

    weighting: Weighting
    sampler: Sampler
    pruner: Pruner
    calibrator: Calibrator | None

    @classmethod
    def of(cls, params: Any, backend: Backend) -> Self:
        """Fresh ones, by the parameters of these names that an estimator has."""
        chosen = cls(*(resolve_strategy(kind, getattr(params, kind)) for kind in cls._fields))
        if params.sampler is not None:
            return chosen
        return chosen._replace(sampler=default_sampler(backend, chosen.weighting))

    @property
    def needs_record(self) -> bool:
        """Whether any of them asks for labelled images."""
        racing = (self.weighting, self.sampler, self.pruner)
        return self.calibrator is not None or any(s.needs_record for s in racing)

    def scoring(self, unweighted: Scoring, backend: Backend) -> Scoring:
        """With the weights and the temperature that were learned."""
        weights = self.weighting.weights(backend.schedule, backend.prediction_type)
        if self.calibrator is None:
            return replace(unweighted, weights=weights)
        return replace(
            unweighted, weights=weights, log_temperature=self.calibrator.log_temperature_
        )

    def learn_from(
        self,
        X: Any,
        y: NDArray,
        record: Callable[[Any, bool], ErrorTable],
        n_images: int,
        seed: int,
    ) -> None:
        """Record some of these images and learn from them, if any strategy asks for it.

        Without images nothing is learned; a weighting, sampler or pruner that cannot do without
        says so when it is asked for what it should have learned.

        Parameters
        ----------
        X : None, images or ErrorTable, of length N
            Indexed by an array.
        y : ndarray of shape (N,)
        record : callable
            Full errors of the images it is given, as a pilot or not.
        n_images : int
            Most images to record.
        seed : int
            Chooses the images and makes the folds.

        Raises
        ------
        ValueError
            If there are no images, but a calibrator.
        """
        if not self.needs_record:
            return
        if X is not None:
            chosen = choose_images(y, n_images, seed)
            images, true_class = X[chosen], np.unique(y, return_inverse=True)[1][chosen]
            if self.sampler.needs_record:
                self.learn_sampler(record(images, True), true_class)
            self.learn(record(images, False), true_class, seed)
        elif self.calibrator is not None:
            raise InputValueError(
                f"calibrator={self.calibrator!r} learns from labelled images; call fit(X, y), or "
                "set calibrator=None."
            )

    def learn(self, table: ErrorTable, true_class: NDArray, seed: int) -> None:
        """Learn from a full table of labelled images; ``seed`` makes the folds.

        Raises
        ------
        ValueError
            If errors are missing from the table.
        """
        record, weights = self._learn_weights(table, true_class)
        self.pruner.learn(record, weights)
        if self.calibrator is not None:
            self._learn_temperature(self.calibrator, table, true_class, seed)

    def learn_sampler(self, table: ErrorTable, true_class: NDArray) -> None:
        """Learn which draws to take, from a full table of labelled images.

        Raises
        ------
        ValueError
            If errors are missing from the table.
        """
        self.sampler.learn(*self._learn_weights(table, true_class))

    def _learn_weights(
        self, table: ErrorTable, true_class: NDArray
    ) -> tuple[FitRecord, torch.Tensor]:
        """The record of a table, and the weights that were learned from it."""
        if not table.is_full:
            raise InputValueError("strategies learn from full tables: errors(X, full=True).")
        record = fit_record(table, true_class)
        weighting = self.weighting.learn(record)
        return record, weighting.weights(table.schedule, table.prediction_type)

    def _learn_temperature(
        self, calibrator: Calibrator, table: ErrorTable, true_class: NDArray, seed: int
    ) -> None:
        """Two passes: the temperature takes part in the race where there are priors."""
        folds = [
            (held_out, *self._learned_without(held_out, table, true_class))
            for held_out in _folds(true_class, seed)
        ]
        order = np.concatenate([held_out for held_out, *_ in folds])
        log_prior = table.scoring.log_prior.numpy()
        temperature = (0.0, 0.0)
        for _ in range(2):
            losses, n_draws = [], []
            for held_out, pruner, weights in folds:
                scoring = replace(table.scoring, weights=weights, log_temperature=temperature)
                raced = table[held_out].race(pruner, scoring)
                n_draws.append(raced.n_draws.max(1))
                losses.append(_losses_without_prior(raced, n_draws[-1]))
            calibrator.learn(
                np.concatenate(losses), np.concatenate(n_draws), true_class[order], log_prior
            )
            temperature = calibrator.log_temperature_

    def _learned_without(
        self, held_out: NDArray, table: ErrorTable, true_class: NDArray
    ) -> tuple[Pruner, torch.Tensor]:
        """Pruner and weights learned from the other images."""
        others = np.setdiff1d(np.arange(len(table)), held_out)
        record = fit_record(table[others], true_class[others])
        weighting = clone(self.weighting).learn(record)
        weights = weighting.weights(table.schedule, table.prediction_type)
        return clone(self.pruner).learn(record, weights), weights


def fit_record(table: ErrorTable, true_class: NDArray) -> FitRecord:
    """What strategies learn from: a table and the class of each of its images."""
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


def choose_images(true_class: NDArray, n_images: int, seed: int) -> NDArray[np.intp]:
    """At most ``n_images`` indices, in order, with classes in the proportions that they have.

    Raises
    ------
    ValueError
        If ``n_images`` is less than 2.
    """
    if check_positive_integer("n_fit_images", n_images) < 2:
        raise InputValueError("n_fit_images=1 is too few to learn from; give 2 at least.")
    order = np.random.default_rng(seed).permutation(len(true_class))
    place = np.empty(len(order))
    for label in np.unique(true_class):
        members = order[true_class[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = order[np.argsort(place[order], kind="stable")][:n_images]
    return np.sort(chosen)


def _folds(true_class: NDArray, seed: int) -> Iterator[NDArray[np.intp]]:
    """Disjoint sets of images, each with about as many of every class."""
    order = np.random.default_rng(seed).permutation(len(true_class))
    order = order[np.argsort(true_class[order], kind="stable")]
    n_folds = min(_FOLDS, len(order))
    for fold in range(n_folds):
        yield order[fold::n_folds]


def _losses_without_prior(table: ErrorTable, n_draws: NDArray) -> NDArray[np.float64]:
    scoring: Scoring = table.scoring
    temperature = np.array([scoring.temperature(int(n)) for n in n_draws])
    return table.class_losses().numpy() + temperature[:, None] * scoring.log_prior.numpy()
