r"""Calibration: temperatures that turn losses into probabilities.

    p(class | x) = softmax( -L / T + log prior ),

where L are the class losses of a race, without the prior. T can be the *natural* one, which needs
no data (:mod:`diffusion_classifier.scoring.natural`), a given number, or learned from labelled
images: temperature scaling (Guo et al., 2017) chooses the T with the smallest log-loss. Races need
two additions:

- A race stops when the winner is clear, so the reliability of its losses depends on its number of
  draws n. :class:`DrawsCalibrator` learns ``log T = a + b log n``.
- If the right class always wins, the log-loss decreases for ever as T -> 0. A weak normal prior on
  ``log T`` ensures a finite optimum. It is centred at the median gap between the best two classes,
  so that scaling all weights by a constant changes no probability.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.base import BaseEstimator
from torch import Tensor

from ..errors import InputValueError
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import Reals, Table
from ..utils.display import DocumentedMixin
from .natural import Unit, natural_temperature, unit_of
from .weighting import Weighting

_LEVEL_DEVIATION = 2.0  # standard deviation of the prior on log T: a factor of 7 either way
_SLOPE_DEVIATION = 0.5  # standard deviation of the prior on b


def temperature(log_temperature: tuple[float, float], n_draws: ArrayLike) -> NDArray[np.float64]:
    """Compute ``T = exp(a + b log n)`` from ``(a, b)``, in the shape of ``n_draws``.

    Examples
    --------
    >>> temperature((np.log(8.0), -1.0), [1, 4]).round(6).tolist()
    [8.0, 2.0]
    """
    level, slope = log_temperature
    return np.exp(level + slope * np.log(n_draws))


class Calibrator(DocumentedMixin, BaseEstimator, ABC):
    """Base class of calibrators, which know or learn a temperature T.

    Attributes
    ----------
    needs_record : bool, default=True
        Class attribute: whether ``learn`` needs the races of labelled images.
    unit : {"given", "nats", "natural"}
        Where T comes from; images multiply a natural T by their doubt. It is ``unit_`` if that
        was set.
    log_temperature_ : tuple of (float, float)
        Learned coefficients ``(a, b)`` of ``log T = a + b log n``, for a race of n draws.
    """

    needs_record: ClassVar[bool] = True
    _constraints: ClassVar[Table] = {}
    log_temperature_: tuple[float, float]
    unit_: Unit

    @property
    def unit(self) -> Unit:
        """Where T comes from: "given" unless it is natural."""
        return getattr(self, "unit_", "given")

    def prepare(
        self, weighting: Weighting, weights: Tensor, schedule: NoiseSchedule, loss: str
    ) -> Self:
        """Find what can be known without data; by default nothing.

        Parameters
        ----------
        weighting : Weighting
        weights : Tensor of shape (T,), dtype float64
            Weights w(t) of ``weighting``.
        schedule : NoiseSchedule
        loss : {"l2", "l1", "huber", "vlb"}

        Returns
        -------
        Calibrator
            The calibrator itself.
        """
        return self

    @abstractmethod
    def learn(
        self, losses: ArrayLike, n_draws: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
    ) -> Self:
        """Learn the temperature from races of labelled images.

        Parameters
        ----------
        losses : array-like of shape (N, K)
            Class losses of each image, without the prior.
        n_draws : array-like of shape (N,)
            Draws of each race.
        true_class : array-like of shape (N,), dtype int
            Column of each image's class. Not every column must occur.
        log_prior : array-like of shape (K,)
            Log prior probability of each class.

        Returns
        -------
        Calibrator
            The calibrator itself.

        Raises
        ------
        InputValueError
            If ``losses`` is empty, not two-dimensional or not finite, or ``true_class`` has
            another length.
        """

    def temperature(self, n_draws: ArrayLike) -> NDArray[np.float64]:
        """Compute T after ``n_draws`` draws, in the shape of ``n_draws``."""
        return temperature(self.log_temperature_, n_draws)


class NaturalCalibrator(Calibrator):
    """The temperature that turns losses into nats, which needs no data.

    It follows from the noise schedule and the weights alone. The temperature of an image is larger
    if its evidence differs much between noise levels, as it does when the network is inexact; see
    :mod:`diffusion_classifier.scoring.natural`. With "likelihood" weights or ``loss="vlb"``,
    losses are in nats already: the temperature is 1 for every image.

    Attributes
    ----------
    log_temperature_ : tuple of (float, float)
        ``(log T, 0)``.
    unit_ : {"nats", "natural"}
        "nats" if losses are in nats as they are.

    References
    ----------
    X. Kong, R. Brekelmans and G. Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["one", "two"])
    >>> clf.calibrator_, round(clf.temperature_, 3)
    (NaturalCalibrator(), 0.247)
    """

    needs_record = False

    def prepare(
        self, weighting: Weighting, weights: Tensor, schedule: NoiseSchedule, loss: str
    ) -> Self:
        """Compute the temperature of these weights; see the base class."""
        self.unit_ = unit_of(weighting, loss)
        self.log_temperature_ = (
            math.log(natural_temperature(weighting, weights, schedule, loss)),
            0.0,
        )
        return self

    def learn(
        self, losses: ArrayLike, n_draws: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
    ) -> Self:
        """Return the calibrator as it is: races have nothing to add."""
        return self


class FixedCalibrator(Calibrator):
    """A temperature that the user gives; ``calibrator=2.0`` of a classifier is short for it.

    Parameters
    ----------
    value : float
        The temperature T, positive.

    Attributes
    ----------
    log_temperature_ : tuple of (float, float)
        ``(log T, 0)``.

    Raises
    ------
    InputValueError
        In ``fit`` of a classifier, if ``value`` is not a positive number.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> clf = DiffusionClassifier(calibrator=2.0, random_state=0).fit(None, ["one", "two"])
    >>> clf.calibrator_, round(clf.temperature_, 3)
    (FixedCalibrator(value=2.0), 2.0)
    """

    needs_record = False
    _constraints: ClassVar[Table] = {"value": Reals(0, math.inf, "neither")}

    def __init__(self, value: float) -> None:
        self.value = value

    def prepare(
        self, weighting: Weighting, weights: Tensor, schedule: NoiseSchedule, loss: str
    ) -> Self:
        """Take the temperature as it is; see the base class."""
        self.log_temperature_ = (math.log(self.value), 0.0)
        return self

    def learn(
        self, losses: ArrayLike, n_draws: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
    ) -> Self:
        """Return the calibrator as it is: races have nothing to add."""
        return self


class TemperatureCalibrator(Calibrator):
    """One temperature for all images.

    Attributes
    ----------
    log_temperature_ : tuple of (float, float)
        ``(log T, 0)``, with the learned T.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017, arXiv 1706.04599.

    Examples
    --------
    The same gap is wrong in one image of four, so probabilities become about 3/4:

    >>> losses = [[0.0, 10.0]] * 20 + [[10.0, 0.0]] * 20
    >>> truth = [0] * 15 + [1] * 5 + [1] * 15 + [0] * 5
    >>> calibrator = TemperatureCalibrator().learn(losses, [8] * 40, truth, np.log([0.5, 0.5]))
    >>> float(1 / (1 + np.exp(-10 / calibrator.temperature(8)))).__round__(2)
    0.75
    """

    def learn(
        self, losses: ArrayLike, n_draws: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
    ) -> Self:
        gaps, truth, prior, centre = _read_races(losses, true_class, log_prior)

        def objective(coefficients: NDArray) -> float:
            (u,) = coefficients
            return _log_loss(gaps, truth, prior, centre + u) + u**2 / (2 * _LEVEL_DEVIATION**2)

        (u,) = _minimise(objective, 1)
        self.log_temperature_ = (centre + u, 0.0)
        return self


class DrawsCalibrator(Calibrator):
    """A temperature that depends on how many draws the race took.

    Attributes
    ----------
    log_temperature_ : tuple of (float, float)
        Learned coefficients ``(a, b)`` of ``log T = a + b log n``, for a race of n draws.

    Examples
    --------
    At the same gap, long races are wrong half of the time and short races never:

    >>> losses = [[0.0, 10.0]] * 40
    >>> truth, n_draws = [0] * 20 + [0, 1] * 10, [4] * 20 + [100] * 20
    >>> calibrator = DrawsCalibrator().learn(losses, n_draws, truth, np.log([0.5, 0.5]))
    >>> bool(calibrator.temperature(100) > 3 * calibrator.temperature(4))
    True
    """

    def learn(
        self, losses: ArrayLike, n_draws: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
    ) -> Self:
        gaps, truth, prior, centre = _read_races(losses, true_class, log_prior)
        log_n = np.log(np.asarray(n_draws, float))
        middle = log_n.mean()

        def objective(coefficients: NDArray) -> float:
            u, slope = coefficients
            log_temperature = centre + u + slope * (log_n - middle)
            penalty = (u / _LEVEL_DEVIATION) ** 2 + (slope / _SLOPE_DEVIATION) ** 2
            return _log_loss(gaps, truth, prior, log_temperature) + penalty / 2

        u, slope = _minimise(objective, 2)
        self.log_temperature_ = (centre + u - slope * middle, slope)
        return self


CalibratorName = Literal["natural", "temperature", "temperature-draws"]
CALIBRATORS: dict[str, type[Calibrator]] = {
    "natural": NaturalCalibrator,
    "temperature": TemperatureCalibrator,
    "temperature-draws": DrawsCalibrator,
}


def _read_races(
    losses: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
) -> tuple[NDArray, NDArray, NDArray, float]:
    """Return validated gaps to the smallest loss, true columns, prior, and the centre of log T."""
    values = np.asarray(losses, float)
    truth = np.asarray(true_class)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise InputValueError(
            f"losses of shape {values.shape} must be finite, with one row per image, one column "
            "per class and at least one row."
        )
    if truth.shape != values.shape[:1]:
        raise InputValueError(
            f"losses have {len(values)} rows, but true_class has shape {truth.shape}; give one "
            "class per row."
        )
    gaps = values - values.min(1, keepdims=True)
    typical = np.median(np.sort(gaps, 1)[:, 1]) or gaps.mean() or 1.0
    return gaps, truth, np.asarray(log_prior, float), float(np.log(typical))


def _log_loss(
    gaps: NDArray, truth: NDArray, log_prior: NDArray, log_temperature: NDArray | float
) -> float:
    """Sum the log-loss over images, at one log temperature or one per image."""
    scores = log_prior - gaps * np.reshape(np.exp(-np.asarray(log_temperature)), (-1, 1))
    return float(-log_softmax(scores, axis=1)[np.arange(len(gaps)), truth].sum())


def _minimise(objective: Callable[[NDArray], float], n_coefficients: int) -> list[float]:
    """Minimise a function without derivatives, starting at zero."""
    options = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000}
    start = np.zeros(n_coefficients)
    return minimize(objective, start, method="Nelder-Mead", options=options).x.tolist()
