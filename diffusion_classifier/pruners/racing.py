r"""RacingPruner: drop a class once it is behind at every look, not just at this one.

Each class is compared with whoever led *before* the round: with round means ``c_kr`` of the
contributions, and ``l(r)`` the best of the others on rounds 1 ... r - 1,

    d_r = c_kr - c_l(r)r,        r = 2, 3, ...

Rounds are independent, and the leader was chosen without looking at round r. So if class k is
the best of all, every ``d_r`` has mean at most 0, given all that came before, *whoever* led.
Class k may be dropped only when that is refuted by a test that may be looked at after every
round. With ``d_r ~ N(mu, s^2)``, a half-normal prior of precision c^2 on mu / s and a scaled
inverse chi-square prior on s^2, worth nu rounds of variance s_0^2, the likelihood ratio against
``mu = 0`` has a closed form. It exceeds 1 / alpha with probability at most alpha, over all looks
together, and that happens when ``S = sum d > 0`` and, after n differences,

    S^2 / (n + c^2)  >=  (1 - exp(-2 b / (n + nu))) (nu s_0^2 + sum d^2),
    b = log(1/2 + sqrt(1 + n / c^2) / (2 alpha)).

The best class is lost when *its* test errs. That is one test, so alpha is not shared among the K
classes, and a thousand classes cost no more certainty than two.

For nu = 0 it is an anytime-valid t-test, exact for normal differences of unknown variance; for any
nu it becomes, as n grows, the one-sided asymptotic confidence sequence. Only that limit holds for
any distribution with a finite variance: the promise is **asymptotic**. What breaks it early is a
class that is usually a little behind and rarely far ahead. Where little but the sample itself is
known of the variance, its skewness g is heeded, if negative: S is lowered by Johnson's correction
of the t-test,

    (1 - nu / nu_max)_+  |g| s (1 + 2 z^2) / 6,      z^2 = min(S^2 / (n s^2), 2 b),

with nu_max = prior_rounds.

The prior keeps the first looks honest and makes them count. Its s_0^2 is one of two:

- learned in ``fit``: how much a rival *as good as* the best class would vary against it, since that
  is what the test must not be fooled by. How much images depart from each other decides nu (as in
  Smyth's moderated t);
- otherwise the image's own: the mean variance of its active rivals, which is more, as distant
  rivals vary more. Worth nothing with one rival, who has nobody to learn from, and at most
  ``prior_rounds`` with many.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..utils.validation import check_positive_integer
from .base import Pruner

_MOST_PRIOR_ROUNDS = 20.0  # that a learned variance may be worth
_LEAST_QUANTILE = 0.1  # of the variances seen, below which none is believed
_LEAST_KNOWLEDGE = 6.0  # rounds, own and prior, behind a variance that a drop may rest on


class RacingPruner(Pruner):
    """Drops a class when it is behind the leader, with total error ``alpha`` over all looks.

    The first round only finds a leader; later rounds test every class against it. Rounds must be
    independent, as those of ``StratifiedSampler`` and ``ImportanceSampler`` are: on ``EvenSampler``
    and ``FixedDraws`` nothing is promised.

    Parameters
    ----------
    alpha : float in (0, 1), default=0.05
        Probability (asymptotically) that the class that would win with infinitely many draws is
        dropped: over all rounds and all classes together. A race that the budget ends is
        decided by the smallest mean, without a promise. Of several prompts per class that race
        one by one ("best", "mixture"), it is the best prompt that is kept.
    max_draws : int, default=200
        Draws after which a race ends whoever is left.
    min_rounds : int, default=2
        Rounds before the first drop, at least 2. Whatever it is, a class is dropped only when its
        variance is known as well as from 6 rounds: its own and those that the prior is worth.
    prior_rounds : float, default=4.0
        Most rounds that the mean variance of an image's rivals is worth; 0: each rival's variance
        is its own. A learned variance has a worth of its own, and then this is only the worth from
        which skewness is not heeded.
    tuned_round : int, default=3
        Round at which the test is most powerful. It stays valid, and good, at all others.
    learn_profile : bool, default=False
        Have ``fit(X, y)`` record errors to learn the closest rival's variance from. A record that
        is made anyway is used in any case.

    Attributes
    ----------
    deviation_ : float
        Learned: standard deviation of the round means of a rival that is as good as the true class,
        less those of that class. In units of contributions.
    prior_rounds_ : float
        Learned: rounds that this is worth; fewer than there were images to learn from.
    round_size_ : int
        Draws per round that it was learned from; with rounds of another size it is not used.

    Raises
    ------
    ValueError
        In ``select``: a parameter is out of range.

    References
    ----------
    I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and A. Ramdas, "Time-uniform central
    limit theory and asymptotic confidence sequences", Annals of Statistics 2024, arXiv
    2103.06476. H. Wang and A. Ramdas, "Anytime-valid t-tests and confidence sequences for
    Gaussian means with unknown variance", arXiv 2310.03722. G. K. Smyth, "Linear models and
    empirical Bayes methods for assessing differential expression", 2004 (the prior's worth). N. J.
    Johnson, "Modified t tests and confidence intervals for asymmetrical populations", Journal of
    the American Statistical Association 1978 (skewness).

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
        """Learn how much a rival as good as the true class would vary against it.

        From each image's closest rival: its variance as a line in its squared gap, at gap 0. It is
        that of rounds of the record's size, under these weights. A record of one round teaches
        nothing, and a race of one drops nobody: unless ``learn_profile`` asks for it, it is left.

        Raises
        ------
        ValueError
            If the record has no image, no two rounds (with ``learn_profile``), or no closest rival
            that varies.
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
                f"RacingPruner learns from at least 2 rounds of at least 1 image, but the record "
                f"has {len(closest)} images and {n_rounds} rounds; use smaller rounds."
            )
        rounds = torch.stack(closest)
        gap, variance = rounds.mean(1), rounds.var(1)
        varies = variance > 0
        if not varies.any():
            raise InputValueError(
                "all paired differences in the record are constant; check the model."
            )
        squared_gap, variance = gap[varies] ** 2, variance[varies]
        at_zero, slope = _fit_line(squared_gap, variance)
        at_zero = max(at_zero, float(variance.quantile(_LEAST_QUANTILE)))
        ratio, self.prior_rounds_ = _prior_variance(
            variance / (at_zero + slope * squared_gap), n_rounds - 1
        )
        self.deviation_ = math.sqrt(at_zero * ratio)
        self.round_size_ = _first_size(record.round_of)
        return self

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        self._check()
        means = round_means(contributions, round_of)
        if active.shape[1] == 1 or means.shape[2] < self.min_rounds:
            return active
        differences = behind_earlier_leader(means)
        n = differences.shape[2]
        total, squares = differences.sum(2), (differences**2).sum(2)
        leader = torch.zeros_like(active).scatter(1, _best(means, active)[:, None], True)
        rivals = active & ~leader & (squares > 0)
        learned = getattr(self, "round_size_", None) == _first_size(round_of)
        variance, worth = self._prior(total, squares, rivals, n, learned)
        precision = self._precision()
        bound = math.log(0.5 + math.sqrt(1 + n / precision) / (2 * self.alpha))
        if n > 1:
            spread = ((squares - total**2 / n).clamp(min=0) + worth * variance) / (n + worth - 1)
            unknown = (1 - worth / max(self.prior_rounds, 1e-12)).clamp(min=0)
            total = total - unknown * _skewness(differences, total, spread, 2 * bound)
        needed = -torch.expm1(-2 * bound / (n + worth))
        evidence = total**2 / (n + precision)
        behind = (total > 0) & (evidence >= needed * (worth * variance + squares))
        return active & ~(behind & rivals & (n + worth >= _LEAST_KNOWLEDGE))

    def _check(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputValueError(f"alpha={self.alpha!r} must be between 0 and 1.")
        if not 0 <= self.prior_rounds < math.inf:
            raise InputValueError(
                f"prior_rounds={self.prior_rounds!r} must be at least 0 and finite."
            )
        if check_positive_integer("min_rounds", self.min_rounds) == 1:
            raise InputValueError(
                "min_rounds=1 must be at least 2: the first round finds a leader."
            )
        check_positive_integer("tuned_round", self.tuned_round)

    def _precision(self) -> float:
        """c^2 of the effect's prior."""
        log_odds = -2 * math.log(self.alpha)
        return self.tuned_round / (log_odds + math.log(log_odds + 1))

    def _prior(
        self, total: Tensor, squares: Tensor, rivals: Tensor, n: int, learned: bool
    ) -> tuple[Tensor, Tensor]:
        """Variance s_0^2 and its worth nu in rounds, broadcastable to [B, P]."""
        if learned:
            return torch.tensor(self.deviation_**2), torch.tensor(self.prior_rounds_)
        if n == 1:  # nothing is known of the variance
            return torch.zeros(1), torch.zeros(1)
        variance = (squares - total**2 / n).clamp(min=0) / (n - 1)
        n_rivals = rivals.sum(1, keepdim=True).clamp(min=1)
        pooled = variance.where(rivals, 0).sum(1, keepdim=True) / n_rivals
        return pooled, self.prior_rounds * (n_rivals - 1) / (n_rivals + 1)


def round_means(contributions: Tensor, round_of: Tensor) -> Tensor:
    """Means over the draws of each round, [B, P, R], of contributions [B, P, J].

    A last round that the budget cut short is left out: it covers only a part of [0, T).
    """
    sizes = round_of.bincount()
    shape = (*contributions.shape[:2], len(sizes))
    sums = contributions.new_zeros(shape).index_add(2, round_of, contributions)
    cut = len(sizes) > 1 and bool(sizes[-1] < sizes[-2])
    return (sums / sizes)[..., : len(sizes) - cut]


def behind_earlier_leader(means: Tensor) -> Tensor:
    """Round means [B, P, R] less those of whoever led before the round, [B, P, R - 1].

    The leader of a round is the row of least mean on all earlier rounds among those that were
    evaluated on it; for that row itself, the second takes its place.

    Examples
    --------
    The second row leads after one round, and the first after two:

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
    """Draws of the first round."""
    return int((round_of == 0).sum())


def _closest(rivals: Tensor) -> Tensor:
    """The row of least mean, [R], of rivals [P, R]."""
    return rivals[rivals.mean(1).argmin()].clone()


def _best(means: Tensor, active: Tensor) -> Tensor:
    """The active row of least mean, [B], of means [B, P, R]."""
    return means.mean(2).masked_fill(~active, torch.inf).argmin(1)


def _skewness(differences: Tensor, total: Tensor, spread: Tensor, most: float) -> Tensor:
    """What negative skewness of differences [B, P, n] takes from their sums [B, P].

    ``spread`` is their variance; ``most`` bounds the z^2 that a correction near the null is for.
    """
    n = differences.shape[2]
    third = ((differences - total[..., None] / n) ** 3).mean(2).clamp(max=0)
    z2 = (total**2 / (n * spread)).clamp(max=most)
    return (-third / spread * (1 + 2 * z2) / 6).nan_to_num(0.0)


def _fit_line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Intercept and slope, both non-negative, of y > 0 on x >= 0, by relative least squares."""
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
    """s_0^2 and nu of the scaled inverse chi-square that these sample variances come from.

    By the mean and variance of their logarithms, each having ``freedom`` degrees of freedom. How
    much n images depart from each other is known from n - 1 deviations: nu is no more.
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
