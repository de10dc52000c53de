r"""What a race learns from labelled images: how a rival *as good as* the best class would vary.

A drop is wrong if it hits the best class, and the hardest case is a rival that is as good. For each
recorded image, let ``d_r`` be the difference, over round r, between the closest rival and the true
class, with mean m and variance v.

**Variance.** Rivals further away vary more. So v is fitted as a line in the squared gap,
``v = a + b g^2``, and read off at g = 0. Here ``g^2 = max(m^2 - c v / R, 0)`` for R rounds. Without
the second term, noise in m would look like a gap, and images of large variance like images with
distant rivals. c is 1 for m > 0, and 1 + 2 log K for m <= 0, because the closest of K rivals that
are all as good has a mean of about -sqrt(2 log K v / R).

**Null rounds.** ``z_r = -(d_r - m) sqrt(a / (a + b g^2))`` are rounds of the best class in such a
race. They keep the skewness and tails of the differences, and how much images differ.

**Prior.** s_0^2 and nu match the mean and variance of the logarithms of the images' variances at
gap 0 (as in Smyth's moderated t). This assumes normal differences whose variance has an inverse
chi-square distribution. Therefore races are simulated on resampled null rounds. If the best class
is lost in more than the intended share of them, s_0^2 is increased until it is not.

**Screen.** After one round, class k is dropped if ``c_k1 - min_j c_j1 > q``. The best of K classes
is lost with probability at most ``(K - 1) P(z > q)``. The tail is that of a mixture over the
recorded images, ``P(z > q) = mean_i P(t_(R-1) > q / s_i)``, where s_i is the standard deviation of
image i at gap 0. So images that vary more than others are taken into account.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import stdtr, stdtrit
from torch import Tensor

from .round_tests import Flags, Floats, RoundTest

_MOST_PRIOR_ROUNDS = 20.0  # upper bound on the weight of a learned variance
_LEAST_QUANTILE = 0.1  # of the observed variances: lower bound on the learned one
_N_PATHS = 4000  # simulated races
_MOST_INFLATION = 1e4  # of s_0^2
_STEPS = 12  # of the search for the inflation: a factor of 1.002


class NullRounds(NamedTuple):
    """Null rounds [N, R] of N images, and the prior that matches their variances."""

    rounds: Tensor
    variance: float
    nu: float


def learn_null(closest: Tensor, n_rivals: int) -> NullRounds:
    """Learn from the differences [N, R] of the closest of ``n_rivals`` rivals.

    They must all vary, and R must be at least 2.
    """
    n_rounds = closest.shape[1]
    gap, variance = closest.mean(1), closest.var(1)
    noise = torch.where(gap > 0, 1.0, 1 + 2 * math.log(n_rivals)) * variance / n_rounds
    squared_gap = (gap**2 - noise).clamp(min=0)
    at_zero, slope = _fit_line(squared_gap, variance)
    # An intercept near 0 would let any small difference drop a class.
    at_zero = max(at_zero, float(variance.quantile(_LEAST_QUANTILE)))
    fitted = at_zero + slope * squared_gap
    ratio, nu = _prior_variance(variance / fitted, n_rounds - 1)
    rounds = (gap[:, None] - closest) * (at_zero / fitted).sqrt()[:, None]
    return NullRounds(rounds, at_zero * ratio, nu)


def calibrated_variance(null: NullRounds, test: RoundTest, share: float, n_rounds: int) -> float:
    """Return the smallest s_0^2 >= null.variance with which few simulated races lose the best.

    A race of the best class is ``n_rounds`` null rounds of one image, drawn with replacement. It
    is lost if the test ever rejects. At most ``share`` of the races may be lost.
    """
    n_images, n_recorded = null.rounds.shape
    repeats = max(_N_PATHS // n_images, 1)
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(n_recorded, (n_images * repeats, n_rounds), generator=generator)
    # Recorded rounds vary around their own mean, and so by a little too little.
    rounds = null.rounds * math.sqrt(n_recorded / (n_recorded - 1))
    paths = rounds.repeat_interleave(repeats, 0).gather(1, picks)
    n = np.arange(1.0, n_rounds + 1)
    total, squares = paths.cumsum(1).numpy(), (paths**2).cumsum(1).numpy()

    def acceptable(factor: float) -> bool:
        lost = test.rejects(n, total, squares, null.variance * factor, null.nu)
        return float((lost & known_enough(n, null.nu)).any(1).mean()) <= share

    if acceptable(1.0):
        return null.variance
    low, high = 0.0, math.log(_MOST_INFLATION)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if acceptable(math.exp(middle)) else (middle, high)
    return null.variance * math.exp(high)


def known_enough(n: Floats, nu: float) -> Flags:
    """Return whether n rounds and a learned variance of weight nu suffice for a first drop."""
    return n + nu >= 6


def screen_threshold(null: NullRounds, n_rivals: int, share: float) -> float:
    """Return q, beyond which one round drops the best of ``n_rivals + 1`` classes too rarely.

    ``share`` is the probability that the best class is lost, over all its rivals.
    """
    freedom = null.rounds.shape[1] - 1
    deviations = null.rounds.std(1).numpy()
    tail = share / n_rivals
    low, high = 0.0, float(-deviations.max() * stdtrit(freedom, tail))
    for _ in range(60):
        middle = (low + high) / 2
        above = np.mean(stdtr(freedom, -middle / deviations)) > tail
        low, high = (middle, high) if above else (low, middle)
    return high


def _fit_line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Fit a line to y > 0 at x >= 0 by least squares of the relative error.

    Returns the intercept and the slope, both non-negative.
    """
    fitted = y.mean().expand_as(y)
    for _ in range(20):
        design = torch.stack([1 / fitted, x / fitted], 1)
        level, slope = torch.linalg.lstsq(design, (y / fitted)[:, None]).solution[:, 0].tolist()
        if slope <= 0:
            return float(y.mean()), 0.0
        if level <= 0:
            return 0.0, float((y / x)[x > 0].median())
        fitted = level + slope * x
    return level, slope


def _prior_variance(variance: Tensor, freedom: int) -> tuple[float, float]:
    """Estimate s_0^2 and nu of the scaled inverse chi-square prior of sample variances.

    The estimates match the mean and variance of the logarithms of the sample variances, which have
    ``freedom`` degrees of freedom each. nu is at most n - 1 for n images.
    """
    half = torch.tensor(freedom / 2, dtype=torch.float64)
    logs = variance.double().log() - torch.digamma(half) + half.log()
    excess = float(logs.var(correction=0) - torch.polygamma(1, half))
    candidates = torch.linspace(0.5, _MOST_PRIOR_ROUNDS, 196, dtype=torch.float64)
    candidates = candidates[candidates <= len(variance) - 1]
    enough = candidates[torch.polygamma(1, candidates / 2) >= excess]
    if not len(enough):
        return float(logs.mean().exp()), 0.0
    nu = enough.max()
    return float((logs.mean() + torch.digamma(nu / 2) - (nu / 2).log()).exp()), float(nu)
