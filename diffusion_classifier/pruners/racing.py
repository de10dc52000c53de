r"""A pruner that tests after every round, with a bound on the error of the whole race.

**Observations.** Each class is compared with the class that led *before* the round. Let ``c_kr`` be
the mean contribution of class k over round r, and ``l(r)`` the class with the smallest mean over
rounds 1 ... r - 1 among the others. The observations of class k are

    d_r = c_kr - c_l(r)r,        r = 2, 3, ...

Rounds are independent, and l(r) is chosen without looking at round r. If class k is the best of
all, each ``d_r`` therefore has mean at most 0 given the past, *whichever* class led. Class k is
dropped only when a test rejects this hypothesis. The test may be repeated after every round.

**Test.** Let ``d_r ~ N(mu, s^2)``, with a half-normal prior of precision c^2 on mu / s, and a
scaled inverse chi-square prior on s^2 that weighs as much as nu rounds of variance s_0^2. The
likelihood ratio against ``mu = 0`` then has a closed form. Under the hypothesis, the probability
that it ever exceeds 1 / alpha is at most alpha. After n differences, it exceeds 1 / alpha if
``S = sum d > 0`` and

    S^2 / (n + c^2)  >=  (1 - exp(-2 b / (n + nu))) (nu s_0^2 + sum d^2),
    b = log(1/2 + sqrt(1 + n / c^2) / (2 alpha)).

The best class is lost only if *its* test errs. That is a single test, so alpha needs no correction
for the number of classes.

**Guarantee.** For nu = 0 this is an anytime-valid t-test, exact for normal differences of unknown
variance. For any nu it approaches, as n grows, the one-sided asymptotic confidence sequence, which
is valid for any distribution of finite variance. So the error bound alpha, the *promise* of this
pruner, is **asymptotic**. With few rounds it can fail for a best class that is usually a little
behind and rarely far ahead: its differences have negative skewness. Therefore, if the sample
skewness g is negative and the prior is weak, S is reduced by Johnson's correction of the t-test,

    (1 - nu / nu_max)_+  |g| s (1 + 2 z^2) / 6,      z^2 = min(S^2 / (n s^2), 2 b),

with nu_max = prior_rounds.

**Prior variance.** The prior stabilises the variance at the first looks. There are two sources:

- A *learned* race uses the variance that ``fit`` found for a rival *as good as* the best class,
  which is the case in which a drop is wrong. Its weight nu depends on how much this variance
  differs between images (as in Smyth's moderated t).
- Otherwise s_0^2 is the mean variance of the image's active rivals. It is larger, because distant
  rivals vary more. Its weight nu is 0 with one rival, which has no others to pool with, and
  approaches ``prior_rounds`` with many.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..utils.constraints import MANY, Booleans, Integers, Reals, Table
from .base import BuiltInPruner, Look, Pruner

_MOST_PRIOR_ROUNDS = 20.0  # upper bound on the weight of a learned variance
_LEAST_QUANTILE = 0.1  # of the observed variances: lower bound on the learned one
_LEAST_KNOWLEDGE = 6.0  # observed differences plus the prior's weight, required for a drop


class RacingPruner(BuiltInPruner):
    """Drop a class when a repeated test finds it worse than the leader, with total error alpha.

    The first round only finds a leader; each later round tests every class against the leader of
    the rounds before. Rounds must be independent, as those of ``StratifiedSampler`` and
    ``ImportanceSampler`` are; with ``EvenSampler`` and ``FixedDraws`` the bound does not hold.

    Parameters
    ----------
    alpha : float in (0, 1), default=0.05
        Bound on the probability that the class that would win with infinitely many draws is
        dropped, over all rounds and classes together. The bound is asymptotic. It does not cover
        the choice of the smallest mean in a race that ends at ``max_draws``. If several prompts
        per class race individually (``prompt_reduction`` "best" and "mixture"), it bounds the
        probability that the best prompt is dropped.
    max_draws : int, default=200
        Draws after which a race ends even if several classes are still active, at
        most 100,000.
    min_rounds : int, default=2
        Rounds before the first drop, at least 2. In addition, a class is dropped only when the
        rounds after the first, plus the weight of the prior variance, are at least 6.
    prior_rounds : float, default=4.0
        Largest weight, in rounds, of the rivals' mean variance as a prior; 0 disables it. A learned
        variance has its own weight, ``prior_rounds_``; negative skewness is then corrected for
        only if that is below ``prior_rounds``.
    tuned_round : int, default=3
        Round at which the test is most powerful. The test is valid at every round.
    learn_profile : bool, default=False
        If True, ``fit(X, y)`` records errors to learn the closest rival's variance. If False, it
        is learned only if another strategy needs a record.

    Attributes
    ----------
    deviation_ : float
        Learned standard deviation, between rounds, of the mean difference between the true class
        and a rival that is equally good, in units of contributions.
    prior_rounds_ : float
        Learned weight of ``deviation_``, in rounds; less than the number of recorded images.
    round_size_ : int
        Draws per round of the record. ``deviation_`` is used only with rounds of this size.

    Raises
    ------
    InputValueError
        In ``select``, if a parameter has a value that it does not allow.

    References
    ----------
    I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and A. Ramdas, "Time-uniform central
    limit theory and asymptotic confidence sequences", Annals of Statistics 2024, arXiv
    2103.06476. H. Wang and A. Ramdas, "Anytime-valid t-tests and confidence sequences for
    Gaussian means with unknown variance", arXiv 2310.03722. G. K. Smyth, "Linear models and
    empirical Bayes methods for assessing differential expression", 2004 (weight of the prior).
    N. J. Johnson, "Modified t tests and confidence intervals for asymmetrical populations",
    Journal of the American Statistical Association 1978 (skewness).

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.pruners import RacingPruner
    >>> errors = torch.randn(1, 3, 40, generator=torch.Generator().manual_seed(0)).double()
    >>> errors += torch.tensor([0.0, 0.2, 5.0])[:, None]
    >>> active = torch.ones(1, 3, dtype=torch.bool)
    >>> RacingPruner().select(errors, active, torch.arange(40) // 4)
    tensor([[ True,  True, False]])
    """

    _constraints: ClassVar[Table] = {
        **Pruner._constraints,
        "alpha": Reals(0, 1, "neither"),
        "min_rounds": Integers(2, MANY),  # the first round only finds a leader
        "prior_rounds": Reals(0, MANY),
        "tuned_round": Integers(1, MANY),
        "learn_profile": Booleans(),
    }

    def __init__(
        self,
        alpha: float = 0.05,
        *,
        max_draws: int = 200,
        min_rounds: int = 2,
        prior_rounds: float = 4.0,
        tuned_round: int = 3,
        learn_profile: bool = False,
    ) -> None:
        self.alpha = alpha
        self.max_draws = max_draws
        self.min_rounds = min_rounds
        self.prior_rounds = prior_rounds
        self.tuned_round = tuned_round
        self.learn_profile = learn_profile

    @property
    def needs_record(self) -> bool:  # type: ignore[override]
        return self.learn_profile

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn the variance between rounds of a rival that is as good as the true class.

        Fit the variance of each image's closest rival as a line in its squared gap, and read it
        off at gap 0. A record of a single round is ignored unless ``learn_profile`` is True.

        Raises
        ------
        InputValueError
            If the record has no image, has a single round although ``learn_profile`` is True, or
            every closest rival has variance 0.
        """
        closest = [
            _closest(round_means(differences[None], record.round_of)[0])
            for differences in record.paired_differences(weights)
        ]
        n_rounds = len(closest[0]) if closest else 0
        if n_rounds == 1 and not self.learn_profile:
            return self
        if n_rounds < 2:
            raise InputValueError(
                "RacingPruner needs at least 1 image and at least 2 rounds to learn from, but "
                f"{len(closest)} images and {n_rounds} rounds were recorded; use more images or "
                "smaller rounds."
            )
        rounds = torch.stack(closest)
        gap, variance = rounds.mean(1), rounds.var(1)
        varies = variance > 0
        if not varies.any():
            raise InputValueError(
                "the differences between the true class and its closest rival are constant in "
                f"all {len(closest)} recorded images, so they have no variance to learn; check "
                "that the network's output depends on its input."
            )
        squared_gap, variance = gap[varies] ** 2, variance[varies]
        at_zero, slope = _fit_line(squared_gap, variance)
        # An intercept near 0 would let any small difference drop a class.
        at_zero = max(at_zero, float(variance.quantile(_LEAST_QUANTILE)))
        ratio, self.prior_rounds_ = _prior_variance(
            variance / (at_zero + slope * squared_gap), n_rounds - 1
        )
        self.deviation_ = math.sqrt(at_zero * ratio)
        self.round_size_ = _first_size(record.round_of)
        return self

    def _survivors(self, look: Look) -> Tensor:
        contributions, active, round_of, _ = look
        means = round_means(contributions, round_of)
        if active.shape[1] == 1 or means.shape[2] < self.min_rounds:
            return active
        differences = behind_earlier_leader(means)
        n = differences.shape[2]
        total, squares = differences.sum(2), (differences**2).sum(2)
        leader = torch.zeros_like(active).scatter(1, _best(means, active)[:, None], True)
        rivals = active & ~leader & (squares > 0)
        learned = getattr(self, "round_size_", None) == _first_size(round_of)
        variance, nu = self._prior(total, squares, rivals, n, learned)
        precision = self._precision()
        bound = math.log(0.5 + math.sqrt(1 + n / precision) / (2 * self.alpha))
        if n > 1:  # correct for negative skewness
            spread = ((squares - total**2 / n).clamp(min=0) + nu * variance) / (n + nu - 1)
            unknown = (1 - nu / max(self.prior_rounds, 1e-12)).clamp(min=0)
            total = total - unknown * _skewness(differences, total, spread, 2 * bound)
        needed = -torch.expm1(-2 * bound / (n + nu))
        evidence = total**2 / (n + precision)
        behind = (total > 0) & (evidence >= needed * (nu * variance + squares))
        return active & ~(behind & rivals & (n + nu >= _LEAST_KNOWLEDGE))

    def _precision(self) -> float:
        """Compute c^2, the prior precision of mu / s."""
        log_odds = -2 * math.log(self.alpha)
        return self.tuned_round / (log_odds + math.log(log_odds + 1))

    def _prior(
        self, total: Tensor, squares: Tensor, rivals: Tensor, n: int, learned: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the prior variance s_0^2 and its weight nu in rounds, broadcastable to [B, P]."""
        if learned:
            return torch.tensor(self.deviation_**2), torch.tensor(self.prior_rounds_)
        if n == 1:  # a single difference has no variance
            return torch.zeros(1), torch.zeros(1)
        variance = (squares - total**2 / n).clamp(min=0) / (n - 1)
        n_rivals = rivals.sum(1, keepdim=True).clamp(min=1)
        pooled = variance.where(rivals, 0).sum(1, keepdim=True) / n_rivals
        return pooled, self.prior_rounds * (n_rivals - 1) / (n_rivals + 1)


def round_means(contributions: Tensor, round_of: Tensor) -> Tensor:
    """Average contributions [B, P, J] over the draws of each round, to [B, P, R].

    A last round that ``max_draws`` cut short is left out, because it covers only a part of [0, T).
    """
    sizes = round_of.bincount()
    shape = (*contributions.shape[:2], len(sizes))
    sums = contributions.new_zeros(shape).index_add(2, round_of, contributions)
    cut = len(sizes) > 1 and bool(sizes[-1] < sizes[-2])
    return (sums / sizes)[..., : len(sizes) - cut]


def behind_earlier_leader(means: Tensor) -> Tensor:
    """Subtract the leader before each round from round means [B, P, R], to give [B, P, R - 1].

    The leader before a round is the row with the smallest mean over all earlier rounds, among the
    rows that were evaluated in that round. The leader itself is compared with the second-best row.

    Examples
    --------
    The second row leads after one round, the first row after two:

    >>> means = torch.tensor([[[2.0, 1.0, 7.0], [1.0, 4.0, 9.0], [5.0, 5.0, 5.0]]])
    >>> behind_earlier_leader(means).tolist()
    [[[-3.0, -2.0], [3.0, 2.0], [1.0, -2.0]]]
    """
    earlier, later = means.cumsum(2)[..., :-1], means[..., 1:]
    best = earlier.masked_fill(later.isnan(), torch.inf).topk(2, dim=1, largest=False).indices
    first, second = later.gather(1, best).unbind(1)
    leads = torch.zeros_like(later, dtype=torch.bool).scatter(1, best[:, :1], True)
    return later - torch.where(leads, second[:, None], first[:, None])


def _first_size(round_of: Tensor) -> int:
    """Count the draws of the first round."""
    return int((round_of == 0).sum())


def _closest(rivals: Tensor) -> Tensor:
    """Return the row of least mean, [R], of rivals [P, R]."""
    return rivals[rivals.mean(1).argmin()].clone()


def _best(means: Tensor, active: Tensor) -> Tensor:
    """Return the index of the active row of least mean, [B], of means [B, P, R]."""
    return means.mean(2).masked_fill(~active, torch.inf).argmin(1)


def _skewness(differences: Tensor, total: Tensor, spread: Tensor, most: float) -> Tensor:
    """Compute Johnson's correction for negative skewness, to be subtracted from ``total`` [B, P].

    ``total`` is the sum of differences [B, P, n] and ``spread`` their variance. z^2 is clipped at
    ``most``, because the correction is accurate only near the null hypothesis.
    """
    n = differences.shape[2]
    third = ((differences - total[..., None] / n) ** 3).mean(2).clamp(max=0)
    z2 = (total**2 / (n * spread)).clamp(max=most)
    return (-third / spread * (1 + 2 * z2) / 6).nan_to_num(0.0)


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
            return 0.0, float((y / x.clamp(min=torch.finfo(x.dtype).tiny)).median())
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
