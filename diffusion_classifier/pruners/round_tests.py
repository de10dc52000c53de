r"""Tests of one class against the leader, from the means of its rounds.

**Observations.** Let ``c_kr`` be the mean contribution of class k over round r, and ``l(r)`` the
class with the smallest mean over rounds 1 ... r - 1 among the others. The observations of class k
are

    d_r = c_kr - c_l(r)r,        r = 2, 3, ...

Rounds are independent, and l(r) is chosen without looking at round r. If class k is the best of
all, each ``d_r`` therefore has mean at most 0 given the past, *whichever* class led.

**Test.** Let ``d_r ~ N(mu, s^2)``, with a half-normal prior of precision c^2 on mu / s, and a
scaled inverse chi-square prior on s^2 that weighs as much as nu rounds of variance s_0^2. The
likelihood ratio against ``mu = 0`` then has a closed form. Under the hypothesis, the probability
that it ever exceeds 1 / alpha is at most alpha. After n differences, it exceeds 1 / alpha if
``S = sum d > 0`` and

    S^2 / (n + c^2)  >=  (1 - exp(-2 b / (n + nu))) (nu s_0^2 + sum d^2),
    b = log(1/2 + sqrt(1 + n / c^2) / (2 alpha)).

For nu = 0 this is an anytime-valid t-test, exact for normal differences of unknown variance. For
any nu it approaches, as n grows, the one-sided asymptotic confidence sequence, which is valid for
any distribution of finite variance.

**Negative skewness.** A class that is usually a little behind and rarely far ahead looks worse than
it is. If the third moment is negative, S is reduced by Johnson's correction of the t-test,

    -m_3 / v * (1 + 2 z^2) / 6,      z^2 = min(S^2 / (n v), 2 b),

with the unbiased third moment m_3, and the variance v that includes the prior.

**State.** All of this needs, for each class, only n and the sums of d, d^2 and d^3 (:class:`Sums`).
The next difference needs the sum of contributions over all earlier rounds, which decides who leads.
So a race can keep five numbers per class instead of all rounds.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# A look works on a few numbers per class, for which an operation of NumPy takes a third of the time
# of one of torch.
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_TINY = np.finfo(np.float64).tiny
# What is 0 / 0 in the first rounds is masked later, and infinite losses are no reason to warn.
without_warnings = np.errstate(divide="ignore", invalid="ignore", over="ignore")


class Sums(NamedTuple):
    """Sums over the n differences of each class, [B, P] each; n is a number, or [B, 1]."""

    n: Floats
    total: Floats
    squares: Floats
    cubes: Floats

    @classmethod
    def of(cls, differences: Floats) -> Self:
        """Sum differences [B, P, n]."""
        squares = differences**2
        return cls(
            np.array(float(differences.shape[2])),
            differences.sum(2),
            squares.sum(2),
            (squares * differences).sum(2),
        )

    @property
    def variance(self) -> Floats:
        """Sample variances, for n >= 2."""
        return np.maximum(self.squares - self.total**2 / self.n, 0) / (self.n - 1)

    @property
    def third_moment(self) -> Floats:
        """Unbiased third central moments, for n >= 3."""
        n, mean = self.n, self.total / self.n
        central = self.cubes - 3 * mean * self.squares + 2 * n * mean**3
        return central * (n / ((n - 1) * (n - 2)))


class RoundTest(NamedTuple):
    """The repeated test of total error ``alpha``, most powerful after ``tuned_round`` rounds."""

    alpha: float
    tuned_round: float

    @property
    def precision(self) -> float:
        """The prior precision c^2 of mu / s."""
        log_odds = -2 * math.log(self.alpha)
        return self.tuned_round / (log_odds + math.log(log_odds + 1))

    def bound(self, n: Floats) -> Floats:
        """Return b after n differences."""
        return np.log(0.5 + np.sqrt(1 + n / self.precision) / (2 * self.alpha))

    def rejects(
        self,
        n: Floats,
        total: Floats,
        squares: Floats,
        variance: Floats | float,
        nu: Floats | float,
    ) -> Flags:
        """Return whether the sums of n differences and of their squares show a mean above 0.

        ``variance`` and ``nu`` are s_0^2 and its weight in rounds; all arguments broadcast.
        """
        needed = -np.expm1(-2 * self.bound(n) / (n + nu)) * (nu * variance + squares)
        return (total > 0) & (total**2 / (n + self.precision) >= needed)

    @without_warnings
    def skewness_correction(
        self, sums: Sums, variance: Floats | float, nu: Floats | float
    ) -> Floats:
        """Return what Johnson's correction for negative skewness takes off ``sums.total``.

        z^2 is clipped, because the correction is accurate only near the null hypothesis.
        """
        n = sums.n
        spread = ((n - 1) * sums.variance + nu * variance) / (n + nu - 1)
        z2 = np.minimum(sums.total**2 / (n * spread), 2 * self.bound(n))
        correction = -np.minimum(sums.third_moment, 0) / spread * (1 + 2 * z2) / 6
        # Differences that are all equal have no skewness, but for rounding.
        return np.where((n >= 3) & np.isfinite(correction), correction, 0.0)


@without_warnings
def prior_of_rivals(sums: Sums, rivals: Flags, most: float) -> tuple[Floats, Floats]:
    """Return s_0^2, the mean variance of the rivals [B, P], and its weight nu for each class.

    The weight is at most ``most (k - 1) / (k + 1)`` for k rivals: a single rival has no others to
    pool with. It is smaller for a class of larger variance s_k^2, in proportion to s_0^2 / s_k^2.
    Otherwise rivals that vary less, or that share their noise, would make such a class look as
    well known as after nu more rounds.
    """
    variance = sums.variance
    n_rivals = np.maximum(rivals.sum(1, keepdims=True), 1)
    pooled = np.where(rivals, variance, 0).sum(1, keepdims=True) / n_rivals
    share = np.minimum(pooled / np.maximum(variance, _TINY), 1)
    return pooled, most * (n_rivals - 1) / (n_rivals + 1) * share


def round_means(contributions: Tensor, round_of: Tensor) -> Tensor:
    """Average contributions [B, P, J] over the draws of each round, to [B, P, R].

    A last round that ``max_draws`` cut short is left out, because it covers only a part of [0, T).
    """
    sizes = round_of.bincount()
    shape = (*contributions.shape[:2], len(sizes))
    sums = contributions.new_zeros(shape).index_add(2, round_of, contributions)
    cut = len(sizes) > 1 and bool(sizes[-1] < sizes[-2])
    return (sums / sizes)[..., : len(sizes) - cut]


def first_size(round_of: Tensor) -> int:
    """Count the draws of the first round."""
    return int((round_of == 0).sum())


def behind_earlier_leader(means: Floats) -> Floats:
    """Subtract the leader before each round from round means [B, P, R], to give [B, P, R - 1].

    The leader before a round is the row with the smallest mean over all earlier rounds, among the
    rows that were evaluated in that round. The leader itself is compared with the second-best row.

    Examples
    --------
    The second row leads after one round, the first row after two:

    >>> means = np.array([[[2.0, 1.0, 7.0], [1.0, 4.0, 9.0], [5.0, 5.0, 5.0]]])
    >>> behind_earlier_leader(means).tolist()
    [[[-3.0, -2.0], [3.0, 2.0], [1.0, -2.0]]]
    """
    n_images, n_rows, n_rounds = means.shape
    earlier, later = means.cumsum(2)[..., :-1], means[..., 1:]
    by_round = (part.swapaxes(1, 2).reshape(-1, n_rows) for part in (earlier, later))
    return behind_leader_of(*by_round).reshape(n_images, n_rounds - 1, n_rows).swapaxes(1, 2)


def behind_leader_of(earlier: Floats, later: Floats) -> Floats:
    """Subtract the leader by ``earlier`` from ``later``, both [B, P] for at least two rows."""
    images, means = np.arange(len(later)), np.where(np.isnan(later), np.inf, earlier)
    best = means.argmin(1)  # of several that are as good, the first one, on every machine
    means[images, best] = np.inf
    first, second = later[images, best], later[images, means.argmin(1)]
    behind = later - first[:, None]
    behind[images, best] = first - second
    return behind
