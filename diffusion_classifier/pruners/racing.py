r"""A pruner that tests after every round, with a bound on the error of the whole race.

**Race.** After every round, each class is tested against the class that led *before* the round
(:mod:`~diffusion_classifier.pruners.round_tests`). The test may be repeated after every round. The
best class is lost only if *its* test errs. That is a single test, so alpha needs no correction for
the number of classes.

**Guarantee.** The error bound alpha, the *promise* of this pruner, is **asymptotic**. In few rounds
it rests on three assumptions about the differences between classes:

- They are about normal. For normal differences the promise holds from the first drop on, however
  much the rivals vary and whatever noise they share.
- If they are skewed, the rare large values have been seen. An event of probability p per draw that
  would show the best class far ahead is unseen after m draws with probability (1 - p)^m. So a class
  is dropped only when its m draws, times the number of active rivals, reach
  ``log(alpha) / log(1 - p)`` for p = .09. The rivals count, because the prior variance pools them.
  This does not help if the rare event happens to all rivals at once. ``robust=True`` counts the
  draws of the class alone, for p = .05.
- In a learned race, the image varies like the recorded ones (as much as the rare ones of them in
  rare cases), which takes the place of the first two.

**Prior variance.** The prior stabilises the variance at the first looks. There are two sources:

- A *learned* race uses the variance that ``fit`` found for a rival *as good as* the best class,
  which is the case in which a drop is wrong. Its weight nu depends on how much this variance
  differs between images. Both are checked on simulated races, and a screen after the first round
  takes a fifth of alpha (:mod:`~diffusion_classifier.pruners.null_rounds`).
- Otherwise s_0^2 is the mean variance of the image's active rivals. Its weight nu is 0 with one
  rival, which has no others to pool with, and approaches ``prior_rounds`` with many. For a class of
  larger variance s_k^2, it is multiplied by s_0^2 / s_k^2. With nu = 6 and 4 differences before the
  first drop, normal differences are then lost in at most 4.9 % of races at alpha = 0.05, for *any*
  s_0^2, by simulation.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord
from ..utils.constraints import MANY, Booleans, Integers, Reals, Table
from .base import BuiltInPruner, Look, Pruner
from .null_rounds import calibrated_variance, known_enough, learn_null, screen_threshold
from .round_tests import (
    Flags,
    Floats,
    RoundTest,
    first_size,
    prior_of_rivals,
    round_means,
    without_warnings,
)
from .running import RunningRounds

LEAST_DIFFERENCES = 4  # before the first drop, unless a variance was learned
_RARE, _RARE_IF_ROBUST = 0.09, 0.05  # probability per draw of the rarest event that must be seen
_SCREEN_SHARE = 0.2  # of alpha, for the screen after the first round
_LOST_SHARE = 0.9  # of the test's alpha, at most lost in simulated races of a learned variance
_MOST_SIMULATED = 100  # rounds of a simulated race


class RacingPruner(BuiltInPruner):
    """Drop a class when a repeated test finds it worse than the leader, with total error alpha.

    The bound is for draws whose rare large errors have been seen. Use ``robust=True`` if a class
    may be a little behind on most draws, yet far ahead on one in twenty: no test can know this
    from fewer draws. It takes about four times the evaluations.

    The first round finds a leader; each later round tests every class against the leader of the
    rounds before. Rounds must be independent, as those of ``StratifiedSampler`` and
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
    min_rounds : int, default=1
        Rounds before the first drop. After a single round, only a learned variance allows drops (a
        *screen*, which takes a fifth of ``alpha``); with 2 or more there is no screen. The repeated
        test needs 4 rounds after the first and, in total over a class's active rivals, 32 draws
        (for other values of alpha: log(alpha) / log(.91)). In a learned race, it needs rounds
        after the first plus ``prior_rounds_`` to be at least 6.
    prior_rounds : float, default=6.0
        Largest weight, in rounds, of the rivals' mean variance as a prior; 0 disables it. A learned
        variance has its own weight, ``prior_rounds_``; negative skewness is then corrected for
        only if that is below ``prior_rounds``.
    tuned_round : int, default=3
        Round at which the test is most powerful. The test is valid at every round.
    learn_profile : bool, default=False
        If True, ``fit(X, y)`` records errors to learn the closest rival's variance. If False, it
        is learned only if another strategy needs a record.
    robust : bool, default=False
        If True, no class is dropped before 59 draws after the first round (for other values of
        alpha: log(alpha) / log(.95)). Then even an event of probability 5 % per draw has shown
        with probability 1 - alpha, also if it happens to all rivals at once. There is no screen.

    Attributes
    ----------
    deviation_ : float
        Learned standard deviation, between rounds, of the mean difference between the true class
        and a rival that is equally good, in units of contributions.
    prior_rounds_ : float
        Learned weight of ``deviation_``, in rounds; less than the number of recorded images.
    round_size_ : int
        Draws per round of the record. What was learned is used only with rounds of this size.
    screen_ : float
        Mean difference to the leader, in units of contributions, beyond which a class is dropped
        after the first round.
    screened_rivals_ : int
        Rivals that ``screen_`` was learned for. Races with more are not screened.

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

    incremental = True
    _constraints: ClassVar[Table] = {
        **Pruner._constraints,
        "alpha": Reals(0, 1, "neither"),
        "min_rounds": Integers(1, MANY),
        "prior_rounds": Reals(0, MANY),
        "tuned_round": Integers(1, MANY),
        "learn_profile": Booleans(),
        "robust": Booleans(),
    }

    def __init__(
        self,
        alpha: float = 0.05,
        *,
        max_draws: int = 200,
        min_rounds: int = 1,
        prior_rounds: float = 6.0,
        tuned_round: int = 3,
        learn_profile: bool = False,
        robust: bool = False,
    ) -> None:
        self.alpha = alpha
        self.max_draws = max_draws
        self.min_rounds = min_rounds
        self.prior_rounds = prior_rounds
        self.tuned_round = tuned_round
        self.learn_profile = learn_profile
        self.robust = robust

    @property
    def needs_record(self) -> bool:  # type: ignore[override]
        return self.learn_profile

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn how a rival that is as good as the true class varies between rounds.

        Learn its variance from each image's closest rival, check it on simulated races, and find
        the threshold of the screen. A record of a single round is ignored unless
        ``learn_profile`` is True.

        Raises
        ------
        InputValueError
            If the record has no image, has a single round although ``learn_profile`` is True, or
            every closest rival has variance 0.
        """
        closest, n_rivals = [], 0
        for differences in record.paired_differences(weights):
            rivals = round_means(differences[None], record.round_of)[0]
            closest.append(rivals[rivals.mean(1).argmin()].clone())
            n_rivals = max(n_rivals, len(rivals))
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
        varies = rounds.var(1) > 0
        if not varies.any():
            raise InputValueError(
                "the differences between the true class and its closest rival are constant in "
                f"all {len(closest)} recorded images, so they have no variance to learn; check "
                "that the network's output depends on its input."
            )
        null = learn_null(rounds[varies], n_rivals)
        self.prior_rounds_, self.round_size_ = null.nu, first_size(record.round_of)
        self.screen_ = screen_threshold(null, n_rivals, self.alpha * _SCREEN_SHARE)
        self.screened_rivals_ = n_rivals
        test = RoundTest(self._test_alpha(self._may_screen(n_rivals + 1)), self.tuned_round)
        most = min(max(self.max_draws // self.round_size_ - 1, 1), _MOST_SIMULATED)
        variance = calibrated_variance(null, test, _LOST_SHARE * test.alpha, most)
        self.deviation_ = math.sqrt(variance)
        return self

    def _survivors(self, look: Look) -> Tensor:
        return self.judge(RunningRounds.of(look.contributions, look.round_of), look.active)

    def judge(self, rounds: RunningRounds, active: Tensor) -> Tensor:
        self._check()
        if active.shape[1] == 1:
            return active
        return torch.from_numpy(self._kept(rounds, active.numpy()))

    @without_warnings
    def _kept(self, rounds: RunningRounds, active: Flags) -> Flags:
        learned = getattr(self, "round_size_", None) == rounds.first_size
        screens = learned and self._may_screen(active.shape[1])
        behind = _behind(rounds, active)
        kept = active & ~self._worse(rounds, active & (behind > 0), learned, screens)
        if screens:
            kept = np.where(rounds.n_rounds == 1, active & (behind <= self.screen_), kept)
        return np.where(rounds.n_rounds < self.min_rounds, active, kept)

    def _worse(self, rounds: RunningRounds, rivals: Flags, learned: bool, screens: bool) -> Flags:
        """Return which rivals [B, P] the repeated test finds worse than the leader."""
        sums = rounds.sums
        rivals = rivals & (sums.squares > 0)
        n_draws = sums.n * rounds.first_size
        if learned:
            ready = known_enough(sums.n, self.prior_rounds_)
        else:
            ready = self._seen(n_draws * rivals.sum(1, keepdims=True), _RARE)
            ready = ready & (sums.n >= LEAST_DIFFERENCES)
        if self.robust:
            ready = ready & self._seen(n_draws, _RARE_IF_ROBUST)
        # Most looks drop nobody. They are over as soon as that is sure.
        worse = rivals & ready & (sums.total > 0)
        if not worse.any():
            return worse
        variance: Floats | float
        nu: Floats | float
        if learned:
            variance, nu = self.deviation_**2, self.prior_rounds_
        else:
            variance, nu = prior_of_rivals(sums, rivals, self.prior_rounds)
        test = RoundTest(self._test_alpha(screens), self.tuned_round)
        worse &= test.rejects(sums.n, sums.total, sums.squares, variance, nu)
        if not worse.any():
            return worse
        unknown = np.maximum(1 - nu / max(self.prior_rounds, 1e-12), 0)
        total = sums.total - unknown * test.skewness_correction(sums, variance, nu)  # never more
        return worse & test.rejects(sums.n, total, sums.squares, variance, nu)

    def _may_screen(self, n_prompts: int) -> bool:
        """Return whether races of this many prompts are screened after the first round."""
        rivals = getattr(self, "screened_rivals_", 0)
        return self.min_rounds == 1 and not self.robust and n_prompts - 1 <= rivals

    def _test_alpha(self, screens: bool) -> float:
        """Return the error that is left to the repeated test."""
        return self.alpha * (1 - _SCREEN_SHARE) if screens else self.alpha

    def _seen(self, n_draws: Floats, probability: float) -> Flags:
        """Return whether an event of this probability per draw has shown, but for alpha."""
        return n_draws >= math.log(self.alpha) / math.log1p(-probability)


def _behind(rounds: RunningRounds, active: Flags) -> Floats:
    """Return how far the mean of each row is behind that of the leading active row, [B, P]."""
    losses = np.where(active, rounds.totals / rounds.n_rounds, np.inf)
    return losses - losses.min(1, keepdims=True)
