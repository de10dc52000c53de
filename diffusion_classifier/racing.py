r"""RacingPruner: drop a class once it is behind at every look, not just at this one.

Let d_1, d_2, ... be a rival's round means less the leader's, on common draws. Rounds are
independent of each other, so these are independent observations of how far the rival is behind.
A rival may be dropped only if "it is not behind" is refuted by a test that may be looked at
after every round. With ``d_r ~ N(mu, s^2)``, a half-normal prior of precision c^2 on mu / s and a
scaled inverse chi-square prior on s^2, worth nu rounds of variance s_0^2, the likelihood ratio
against ``mu = 0`` has a closed form. It exceeds 1 / a with probability at most a, over all looks
together, and that happens when ``S = sum d > 0`` and

    S^2 / (n + c^2)  >=  (1 - exp(-2 b / (n + nu))) (nu s_0^2 + sum d^2),
    b = log(1/2 + sqrt(1 + n / c^2) / (2 a)).

For nu = 0 it is an anytime-valid t-test, exact for normal round means of unknown variance; for
any nu it becomes, as n grows, the one-sided asymptotic confidence sequence. Only that limit
holds for any distribution with a finite variance: the promise is **asymptotic**, and rounds that
are few and strongly skewed can break it.

The best class can be lost only to one of K - 1 others, so each test gets a = alpha / (K - 1):
whoever leads, whenever the lead changes, and although a dropped class never returns, the best
class is lost with probability at most alpha.

The prior keeps the first looks honest and makes them count. Its s_0^2 is one of two:

- learned in ``fit``: ``s_0^2 = floor^2 + kappa^2 gap^2``, as distant rivals vary more. How much
  the images of the record depart from it decides nu (as in Smyth's moderated t);
- otherwise the image's own: the mean variance of its active rivals. Worth nothing with one
  rival, who has nobody to learn from, and at most ``prior_rounds`` with many.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from .profile import FitRecord
from .pruners import Pruner, behind_leader
from .validation import check_positive_integer

_MOST_PRIOR_ROUNDS = 20.0  # that a learned profile may be worth


class RacingPruner(Pruner):
    """Drops a class when it is behind the leader, with total error ``alpha`` over all looks.

    Parameters
    ----------
    alpha : float in (0, 1), default=0.05
        Probability (asymptotically) that the class that would win with infinitely many draws is
        dropped: over all rounds and all classes together. A race that the budget ends is
        decided by the smallest mean, without a promise.
    max_draws : int, default=200
        Draws after which a race ends whoever is left.
    min_rounds : int, optional
        Rounds before the first drop. By default 2 with a learned profile and 4 without.
    prior_rounds : float, default=4.0
        Most rounds that the variance of an image's other rivals is worth; 0: each rival's
        variance is its own. Without effect after ``learn``.
    tuned_round : int, default=6
        Round at which the test is most powerful. It stays valid, and good, at all others.
    learn_profile : bool, default=False
        Have ``fit(X, y)`` record errors to learn the rivals' variance from. A record that is
        made anyway is used in any case.

    Attributes
    ----------
    floor_, kappa_ : float
        Learned: the standard deviation of a rival's round means is
        ``sqrt(floor_^2 + kappa_^2 gap^2)``. In units of contributions.
    prior_rounds_ : float
        Learned: rounds that this is worth.

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
    empirical Bayes methods for assessing differential expression", 2004 (the prior's worth).

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.racing import RacingPruner
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
        min_rounds: int | None = None,
        prior_rounds: float = 4.0,
        tuned_round: int = 6,
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
        """Learn how much a rival's round means vary, given how far it is behind.

        Raises
        ------
        ValueError
            If the record has no image, no two rounds, or no rival that varies.
        """
        pairs = [
            round_means(differences[None], record.round_of)[0]
            for differences in record.paired_differences(weights)
        ]
        n_rounds = pairs[0].shape[1] if pairs else 0
        if n_rounds < 2:
            raise ValueError(
                f"RacingPruner learns from at least 2 rounds of at least 1 image, but the record "
                f"has {len(pairs)} images and {n_rounds} rounds; use smaller rounds."
            )
        means = torch.cat(pairs)
        squared_gap, variance = means.mean(1) ** 2, means.var(1)
        squared_gap, variance = squared_gap[variance > 0], variance[variance > 0]
        if not len(variance):
            raise ValueError("all paired differences in the record are constant; check the model.")
        floor, slope = _fit_line(squared_gap, variance)
        spread = (variance / (floor + slope * squared_gap)).log().var(correction=0)
        excess = spread - torch.polygamma(1, torch.tensor((n_rounds - 1) / 2))
        self.floor_, self.kappa_ = math.sqrt(floor), math.sqrt(slope)
        self.prior_rounds_ = _prior_worth(float(excess))
        return self

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        precision, level = self._rates(active.shape[1])
        means = round_means(contributions, round_of)
        n_rounds = means.shape[2]
        if active.shape[1] == 1 or n_rounds < self._first_look():
            return active
        differences = behind_leader(means, active)
        gap, squares = differences.mean(2), (differences**2).sum(2)
        rivals = active & (squares > 0)
        prior_variance, prior_rounds = self._prior(gap, squares, rivals, n_rounds)
        bound = math.log(0.5 + math.sqrt(1 + n_rounds / precision) / (2 * level))
        needed = -torch.expm1(-2 * bound / (n_rounds + prior_rounds))
        evidence = (n_rounds * gap) ** 2 / (n_rounds + precision)
        behind = (gap > 0) & (evidence >= needed * (prior_rounds * prior_variance + squares))
        return active & ~(behind & rivals)

    def _first_look(self) -> int:
        if self.min_rounds is None:
            return 2 if hasattr(self, "prior_rounds_") else 4
        return check_positive_integer("min_rounds", self.min_rounds)

    def _rates(self, n_contenders: int) -> tuple[float, float]:
        """Precision c^2 of the effect's prior and level a of each test."""
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha={self.alpha!r} must be between 0 and 1.")
        if not 0 <= self.prior_rounds < math.inf:
            raise ValueError(f"prior_rounds={self.prior_rounds!r} must be at least 0 and finite.")
        round_ = check_positive_integer("tuned_round", self.tuned_round)
        level = self.alpha / max(1, n_contenders - 1)
        log_odds = -2 * math.log(level)
        return round_ / (log_odds + math.log(log_odds + 1)), level

    def _prior(
        self, gap: Tensor, squares: Tensor, rivals: Tensor, n_rounds: int
    ) -> tuple[Tensor, Tensor]:
        """Variance s_0^2 and its worth in rounds, broadcastable to [B, P]."""
        if hasattr(self, "prior_rounds_"):
            return self.floor_**2 + self.kappa_**2 * gap**2, torch.tensor(self.prior_rounds_)
        if n_rounds == 1:
            return torch.zeros(1), torch.zeros(1)
        variance = (squares - n_rounds * gap**2).clamp(min=0) / (n_rounds - 1)
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


def _fit_line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Intercept and slope, both non-negative, of y > 0 on x >= 0, by relative least squares."""
    fitted = y.mean().expand_as(y)
    for _ in range(20):
        design = torch.stack([1 / fitted, x / fitted], 1)
        floor, slope = torch.linalg.lstsq(design, (y / fitted)[:, None]).solution[:, 0].tolist()
        if slope <= 0:
            return float(y.mean()), 0.0
        if floor <= 0:
            return 0.0, float((y / x.clamp(min=torch.finfo(x.dtype).tiny)).median())
        fitted = floor + slope * x
    return floor, slope


def _prior_worth(excess: float) -> float:
    """Degrees of freedom nu whose trigamma(nu / 2) is the excess variance of log variances."""
    rounds = torch.linspace(0.5, _MOST_PRIOR_ROUNDS, 196, dtype=torch.float64)
    enough = rounds[torch.polygamma(1, rounds / 2) >= excess]
    return float(enough.max()) if len(enough) else 0.0
