r"""Intervals of what was measured on n images.

Wilson's interval for a share p of n (E. B. Wilson, "Probable Inference", 1927), with z = 1.96:

    (p + z^2 / 2n  ±  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

It stays within [0, 1], and has a width when all answers are right.

Two shares p_a and p_b of the same n trials differ by p_b - p_a. Its interval adds the squares of
the arms of Wilson's intervals [l_a, u_a] and [l_b, u_b] (R. G. Newcombe, "Improved confidence
intervals for the difference between binomial proportions based on paired data", 1998, method 10):

    low  = p_b - p_a - sqrt((p_b - l_b)^2 - 2 phi (p_b - l_b) (u_a - p_a) + (u_a - p_a)^2)
    high = p_b - p_a + sqrt((u_b - p_b)^2 - 2 phi (u_b - p_b) (p_a - l_a) + (p_a - l_a)^2),

with phi the correlation of a and b over the trials, corrected for continuity.

Other figures have a percentile bootstrap interval: the figure of 1,000 samples of rows, drawn with
replacement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

N_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A figure and its 95 % interval.

    Attributes
    ----------
    value : float
    low : float
        Lower end of the interval.
    high : float
        Upper end of the interval.

    Examples
    --------
    >>> Estimate(0.5, 0.25, 0.75).high
    0.75
    """

    value: float
    low: float
    high: float


def wilson(n_right: int, n: int, level: float = 0.95) -> Estimate:
    """Compute a share and its Wilson interval.

    Parameters
    ----------
    n_right : int
        Number of successes.
    n : int
        Number of trials.
    level : float, default=0.95
        Coverage of the interval.

    Returns
    -------
    Estimate
        ``n_right / n``, with its interval; NaN between 0 and 1 if ``n`` is 0.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(3, 4)]
    [0.75, 0.301, 0.954]
    """
    if n == 0:
        return Estimate(np.nan, 0.0, 1.0)
    z, share = float(ndtri(0.5 + level / 2)), n_right / n
    middle = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + side * half) / (1 + z**2 / n) for side in (-1, 1))
    # Rounding must not push an end beyond a share of 0 or 1.
    return Estimate(share, float(min(max(low, 0.0), share)), float(max(min(high, 1.0), share)))


def newcombe(n_both: int, n_only_a: int, n_only_b: int, n_neither: int) -> Estimate:
    """Compute the difference of two shares of the same trials, and its 95 % score interval.

    Parameters
    ----------
    n_both : int
        Number of trials in which a and b both succeed.
    n_only_a, n_only_b : int
        Number of trials in which only this one succeeds.
    n_neither : int
        Number of trials in which neither does.

    Returns
    -------
    Estimate
        Share of b less that of a, with Newcombe's interval (method 10); NaN between -1 and 1
        without trials.

    Examples
    --------
    >>> [round(end, 3) for end in newcombe(1, 7, 1, 12)]
    [-0.286, -0.507, -0.026]
    """
    n = n_both + n_only_a + n_only_b + n_neither
    if n == 0:
        return Estimate(np.nan, -1.0, 1.0)
    n_a, n_b = n_both + n_only_a, n_both + n_only_b
    a, b = wilson(n_a, n), wilson(n_b, n)
    cross: float = n_both * n_neither - n_only_a * n_only_b
    if cross > 0:
        cross = max(cross - n / 2, 0)
    margins = n_a * (n - n_a) * n_b * (n - n_b)
    phi = cross / margins**0.5 if margins else 0.0
    difference = (n_only_b - n_only_a) / n
    low = difference - _arm(b.value - b.low, a.high - a.value, phi)
    high = difference + _arm(b.high - b.value, a.value - a.low, phi)
    return Estimate(difference, low, high)


def _arm(one: float, other: float, phi: float) -> float:
    """Return the length of a difference's arm, from those of two correlated shares."""
    return float((one**2 - 2 * phi * one * other + other**2) ** 0.5)


def bootstrap(
    figure: Callable[..., Any],
    *columns: ArrayLike,
    clusters: ArrayLike | None = None,
    seed: int = 0,
) -> Estimate:
    """Compute a figure and its 95 % bootstrap interval, over rows or whole clusters.

    Parameters
    ----------
    figure : callable
        ``figure(*columns)`` returns a number.
    *columns : array-like of shape (n,)
        They are resampled together.
    clusters : array-like of shape (n,), optional
        Cluster of each row; whole clusters are resampled. By default single rows.
    seed : int, default=0
        Seed of the 1,000 samples.

    Returns
    -------
    Estimate
        Ends are NaN or infinite if the figure of some samples is.

    Examples
    --------
    >>> mean = bootstrap(np.mean, [1.0, 2.0, 3.0, 4.0])
    >>> mean.value, 1 <= mean.low < mean.high <= 4
    (2.5, True)
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(column) for column in columns]
    n_units = len(arrays[0])
    if clusters is not None:
        labels = np.asarray(clusters)
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        n_units = len(members)
    values = []
    with np.errstate(divide="ignore", invalid="ignore"):  # a sample's figure may be infinite
        for _ in range(N_RESAMPLES):
            picks = rng.integers(n_units, size=n_units)
            rows = picks if clusters is None else np.concatenate([members[pick] for pick in picks])
            values.append(figure(*(array[rows] for array in arrays)))
        value = float(figure(*arrays))
        low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return Estimate(value, low, high)
