r"""From losses to probabilities that mean something: temperatures, learned from labelled races.

    p(class | x) = softmax( -L / T + log prior ),

L the losses of a race without the prior. Temperature scaling (Guo et al.) picks the T of least
log-loss on labelled images. Two things are particular here:

- A race stops when the answer is clear, so how much its losses mean depends on how many draws n it
  took: :class:`DrawsCalibrator` learns ``log T = a + b log n``.
- If the right class always wins, log-loss falls for ever as T -> 0, and there is no optimum. A weak
  normal prior on ``log T`` gives one always. It is centred at the median gap between the best two
  classes, so that multiplying all weights by a constant changes no probability.

An optimum of a smooth penalised function, with no bounds to stick at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.base import BaseEstimator

from ..errors import InputValueError
from ..utils.display import DocumentedMixin

_LEVEL_DEVIATION = 2.0  # of the prior on log T: a factor of 7 either way
_SLOPE_DEVIATION = 0.5  # of the prior on b


def temperature(log_temperature: tuple[float, float], n_draws: ArrayLike) -> NDArray[np.float64]:
    """``T = exp(a + b log n)`` after n draws, in the shape of ``n_draws``.

    Examples
    --------
    >>> temperature((np.log(8.0), -1.0), [1, 4]).round(6).tolist()
    [8.0, 2.0]
    """
    level, slope = log_temperature
    return np.exp(level + slope * np.log(n_draws))


class Calibrator(DocumentedMixin, BaseEstimator, ABC):
    """Learns how confident losses deserve to be.

    Attributes
    ----------
    log_temperature_ : tuple of (float, float)
        ``(a, b)`` of ``log T = a + b log n``, after ``learn``.
    """

    log_temperature_: tuple[float, float]

    @abstractmethod
    def learn(
        self, losses: ArrayLike, n_draws: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
    ) -> Self:
        """Learn the temperature from races of labelled images.

        Parameters
        ----------
        losses : array-like of shape (N, K)
            Classes' losses, without the prior.
        n_draws : array-like of shape (N,)
            Draws that each race took.
        true_class : array-like of shape (N,), dtype int
            Column of each image's class; columns need not all occur.
        log_prior : array-like of shape (K,)

        Returns
        -------
        Calibrator
            Itself.
        """

    def temperature(self, n_draws: ArrayLike) -> NDArray[np.float64]:
        """T of races of this many draws, of the same shape."""
        return temperature(self.log_temperature_, n_draws)


class TemperatureCalibrator(Calibrator):
    """One temperature for all images.

    Attributes
    ----------
    log_temperature_ : tuple of (float, float)
        ``(log T, 0)``.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017, arXiv 1706.04599.

    Examples
    --------
    One answer in four is wrong, by the same gap: probabilities become about 3/4.

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
        ``(a, b)`` of ``log T = a + b log n``.

    Examples
    --------
    Long races are wrong as often as right by the same gap, short ones never.

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


CalibratorName = Literal["temperature", "temperature-draws"]
CALIBRATORS: dict[str, type[Calibrator]] = {
    "temperature": TemperatureCalibrator,
    "temperature-draws": DrawsCalibrator,
}


def _read_races(
    losses: ArrayLike, true_class: ArrayLike, log_prior: ArrayLike
) -> tuple[NDArray, NDArray, NDArray, float]:
    """Losses less the least, the true columns, the prior, and where log T is likely to be."""
    values = np.asarray(losses, float)
    truth = np.asarray(true_class)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise InputValueError(
            f"losses of shape {values.shape} must be finite, one row per image and one column per "
            "class, of at least one image."
        )
    if truth.shape != values.shape[:1]:
        raise InputValueError(
            f"{len(values)} rows of losses, but true_class of shape {truth.shape}."
        )
    gaps = values - values.min(1, keepdims=True)
    typical = np.median(np.sort(gaps, 1)[:, 1]) or gaps.mean() or 1.0
    return gaps, truth, np.asarray(log_prior, float), float(np.log(typical))


def _log_loss(
    gaps: NDArray, truth: NDArray, log_prior: NDArray, log_temperature: NDArray | float
) -> float:
    """Summed log-loss at a temperature, or one per image."""
    scores = log_prior - gaps * np.reshape(np.exp(-np.asarray(log_temperature)), (-1, 1))
    return float(-log_softmax(scores, axis=1)[np.arange(len(gaps)), truth].sum())


def _minimise(objective: Callable[[NDArray], float], n_coefficients: int) -> list[float]:
    """Where a smooth function is least, from zero; a simplex needs no slopes."""
    options = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000}
    start = np.zeros(n_coefficients)
    return minimize(objective, start, method="Nelder-Mead", options=options).x.tolist()
