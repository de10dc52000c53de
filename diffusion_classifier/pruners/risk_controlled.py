r"""A pruner whose error is bounded on average over images, by conformal risk control.

**Statistic.** Let ``c_kr`` be the mean contribution of class k over round r, and l the class with
the smallest mean over rounds 1 ... n. With ``d_r = c_kr - c_lr``, the *moderated t* of class k is

    t_k = mean(d) / sqrt(v / n),     v = (nu s_0^2 + sum (d_r - mean d)^2) / (nu + n - 1).

The learned variance ``s_0^2`` weighs as much as nu = 4 rounds, so that t exists after one round.
After every round, the classes with ``t_k > lambda`` are dropped. The threshold lambda is the same
at every round.

**Threshold.** An image is *lost* when the race drops the class that wins on all recorded draws, the
*winner*. Let ``T`` be the largest t of the winner, against any other class and after any round. If
``lambda >= T``, the winner is never dropped, whichever classes have been dropped before. So the
loss ``1[T > lambda]`` bounds the true one and does not increase with lambda, as conformal risk
control requires. On n images, lambda is the smallest threshold with

    (#{i: T_i > lambda} + 1) / (n + 1)  <=  risk.

**Guarantee.** If another image is exchangeable with these n, the probability that it is lost is at
most ``risk``. This holds for any n and any distribution of errors. The probability is over the n
images and the new one together. For a loss that is 0 or 1, conformal risk control is the same as a
conformal prediction set: lambda is a quantile of the T_i.

``s_0^2`` must not depend on the n images. It is learned from other images of the record: the median
variance of the difference between the winner and its closest rival.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..utils.constraints import Reals, Table
from .base import BuiltInPruner, Look, Pruner, behind_leader
from .round_tests import first_size, round_means

_PRIOR_ROUNDS = 4.0  # nu; costs on four networks differ by a few percent from 2 to 18
_MOST_FOR_VARIANCE = 20  # images whose closest rival's variance is averaged
_TIES = 1e-9  # relative rounding of t: images at the threshold are kept


class RiskControlledPruner(BuiltInPruner):
    """Drop classes so early that a given share of all images may lose its answer.

    The promise is an *average over images*: of many images, at most the expected share ``risk``
    gets another answer than from all draws. A single hard image may be lost with a much higher
    probability. For a bound that holds for each image, use
    :class:`~diffusion_classifier.pruners.RacingPruner`, which needs about three times the
    evaluations or more.

    The promise needs *exchangeable* images: those that ``fit(X, y)`` records and those that are
    classified later must come from the same source, in random order. It does not cover other data,
    images that the model has drawn itself, or another seed, sampler, weighting or set of classes.

    Parameters
    ----------
    risk : float in (0, 1), default=0.05
        Bound on the expected share of images whose answer differs from that of all draws. At
        least ``1 / risk - 1`` images are needed for the threshold, besides a quarter as many, at
        most 20, for the variance.
    max_draws : int, default=200
        Draws after which a race ends even if several classes are still active, at
        most 100,000.

    Attributes
    ----------
    threshold_ : float
        Largest moderated t at which a class stays in the race.
    deviation_ : float
        Standard deviation, between rounds, of the mean difference between the winner and its
        closest rival, in units of contributions.
    round_size_ : int
        Draws per round of the record.
    n_draws_ : int
        Draws of the record, at most ``max_draws``. A race of more draws drops nothing after these.

    Raises
    ------
    InputValueError
        In ``select`` and ``next_look``, if the threshold has not been learned, a parameter has a
        value that it does not allow, or rounds are of another size than those of the record.

    Notes
    -----
    Labels are not needed to learn the threshold: an image is lost if its answer changes, right or
    wrong. If several prompts per class race individually (``prompt_reduction`` "best" and
    "mixture"), the promise is about the best prompt. With "mean" and several prompts per class,
    the threshold is learned from single prompts, and the promise is approximate.

    Given one threshold, the share of lost images may be above ``risk``. Learned from n images, it
    varies between fits by about ``sqrt(risk / n)``.

    References
    ----------
    A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei and T. Schuster, "Conformal Risk Control", ICLR
    2024, arXiv 2208.02814. G. K. Smyth, "Linear models and empirical Bayes methods for assessing
    differential expression", 2004 (moderated t).

    Examples
    --------
    >>> import numpy as np
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.backends import GaussianBackend
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> X[::2] += 3
    >>> pruner = RiskControlledPruner(risk=0.1, max_draws=20)
    >>> clf = DiffusionClassifier(GaussianBackend(), pruner=pruner, random_state=0)
    >>> bool(clf.fit(X, np.arange(60) % 2).pruner_.threshold_ < 10)
    True
    """

    needs_record = True
    _constraints: ClassVar[Table] = {**Pruner._constraints, "risk": Reals(0, 1, "neither")}

    def __init__(self, risk: float = 0.05, *, max_draws: int = 200) -> None:
        self.risk = risk
        self.max_draws = max_draws

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn the variance from some images and the threshold from the others.

        Raises
        ------
        InputValueError
            If the record has too few images for ``risk``, fewer than 2 rounds, or constant errors.
        """
        self._check()
        n = len(record)
        for_variance = _for_variance(n)
        allowed = math.floor(self.risk * (n - for_variance + 1) + _TIES) - 1
        if allowed < 0:
            raise InputValueError(
                f"risk={self.risk} needs errors of at least {_images_needed(self.risk)} images, "
                f"but the record has {n}; give fit(X, y) more images, raise n_fit_images, or "
                "accept a higher risk. (A learned temperature is tried on folds, each with four "
                "fifths of the images.)"
            )
        n_draws = min(len(record.timesteps), int(self.max_draws))
        round_of = record.round_of[:n_draws]
        if int(round_of[-1]) == 0:
            raise InputValueError(
                f"{type(self).__name__} needs errors of at least 2 rounds, but the record has 1; "
                "raise max_draws, or use smaller rounds."
            )
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        first = set(order[:for_variance].tolist())

        def winners(images: Container[int]) -> Iterator[tuple[int, Tensor]]:
            for i, contributions in enumerate(record.contributions(weights)):
                if i in images:
                    yield _behind_others(contributions[:, :n_draws], round_of)

        variance = _median_variance([_closest(*image, record.class_of) for image in winners(first)])
        others = set(range(n)) - first
        worst = sorted((_worst(behind, variance) for _, behind in winners(others)), reverse=True)
        self.threshold_ = worst[allowed] * (1 + _TIES)
        self.deviation_ = math.sqrt(variance)
        self.round_size_ = first_size(round_of)
        self.n_draws_ = n_draws
        return self

    def next_look(self, n_draws: int) -> int:
        self._learned_threshold()
        return n_draws + 1

    def _survivors(self, look: Look) -> Tensor:
        contributions, active, round_of, _ = look
        threshold = self._learned_threshold()
        size = first_size(round_of)
        if size != self.round_size_:
            raise InputValueError(
                f"the threshold was learned from rounds of {self.round_size_} draws, but this race "
                f"has rounds of {size}; call fit(X, y) with the sampler of this race."
            )
        if active.shape[1] == 1 or len(round_of) > self.n_draws_:
            return active
        behind = behind_leader(round_means(contributions, round_of), active)
        t = _moderated_t(behind.sum(2), (behind**2).sum(2), behind.shape[2], self.deviation_**2)
        return active & ~(t > threshold)

    def _learned_threshold(self) -> float:
        if not hasattr(self, "threshold_"):
            raise InputValueError(
                f"{type(self).__name__} has no threshold: it is learned from labelled images; call "
                "fit(X, y), or use RacingPruner, which needs none."
            )
        return self.threshold_


def _for_variance(n_images: int) -> int:
    """Return how many of the recorded images the variance is learned from."""
    return min(max(n_images // 4, 1), _MOST_FOR_VARIANCE)


def _images_needed(risk: float) -> int:
    """Return the least number of images for a threshold."""
    for_threshold = math.ceil(1 / risk - _TIES) - 1
    n = for_threshold + 1
    while n - _for_variance(n) < for_threshold:
        n += 1
    return n


def _behind_others(contributions: Tensor, round_of: Tensor) -> tuple[int, Tensor]:
    """Return the winner and how far it is behind each prompt in each round, [P, R]."""
    winner = int(contributions.mean(1).argmin())
    means = round_means(contributions[None], round_of)[0]
    return winner, means[winner] - means


def _closest(winner: int, behind: Tensor, class_of: Tensor) -> Tensor:
    """Return the row, [R], of the best prompt of another class than the winner's."""
    rivals = behind[class_of != class_of[winner]]
    return rivals[rivals.mean(1).argmax()]


def _median_variance(closest: list[Tensor]) -> float:
    """Return the median variance between rounds of the closest rival, from [R] for each image."""
    varying = [v for v in (float(rounds.var()) for rounds in closest) if v > 0]
    if not varying:
        raise InputValueError(
            "the differences between the winner and its closest rival are constant in all "
            f"{len(closest)} images that the variance is learned from; check that the network's "
            "output depends on its input."
        )
    return float(torch.tensor(varying, dtype=torch.float64).median())


def _worst(behind: Tensor, variance: float) -> float:
    """Return the largest moderated t of the winner after any round, at least 0."""
    n = torch.arange(1, behind.shape[1] + 1, dtype=torch.float64)
    t = _moderated_t(behind.cumsum(1), (behind**2).cumsum(1), n, variance)
    return max(float(t.max()), 0.0)


def _moderated_t(total: Tensor, squares: Tensor, n: Tensor | int, variance: float) -> Tensor:
    """Compute t from the sum of n differences and of their squares."""
    spread = (squares - total**2 / n).clamp(min=0)
    moderated = (_PRIOR_ROUNDS * variance + spread) / (_PRIOR_ROUNDS + n - 1)
    return total / (n * moderated).sqrt()
