r"""A lower bound on the evaluations of a race, and races that know more than a real one.

To tell the winner from rival k, whose difference per draw has mean D_k and variance s_k^2, with
error alpha on either side, a test of known variance needs on average at least

    N_k = 2 kl(alpha, 1 - alpha) s_k^2 / D_k^2    draws,    kl(.05, .95) = 2.65,

at most the budget. Draws are shared by classes and a dropped class takes no more of them, so that
a race needs sum_k N_k + max_k N_k evaluations: each rival's draws, and the winner's. D_k and s_k
come from the full record of each image.
"""

from __future__ import annotations

import math

import numpy as np

from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.pruners.round_tests import RoundTest

ALPHA = 0.05
KL = (1 - 2 * ALPHA) * math.log((1 - ALPHA) / ALPHA)
TEST = RoundTest(ALPHA, RacingPruner().tuned_round)


def bound_figures(means, size):
    """Compute the bounds and the idealised races of one image, from round means [K, R]."""
    n_rounds = means.shape[1]
    winner = means.mean(1).argmin()
    ahead = means - means[winner]
    rivals = np.arange(len(means)) != winner
    gap, variance = ahead.mean(1)[rivals], ahead.var(1, ddof=1)
    square = np.maximum(gap, 1e-300) ** 2 / variance[rivals]  # of a round
    known = np.minimum(2 * KL / square, n_rounds)
    unknown = np.minimum(2 * KL / np.log1p(square), n_rounds)
    whole = np.ceil(known)
    closest = np.flatnonzero(rivals)[gap.argmin()]
    variance[winner] = variance[closest]
    return {
        "bound": size * (known.sum() + known.max()),
        "unknown": size * (unknown.sum() + unknown.max()),
        "whole": size * (whole.sum() + whole.max()),
        "all known": size * ideal_race(means, variance, winner),
        "leader unknown": size * ideal_race(means, variance, None),
    }


def ideal_race(means, variance, winner):
    """Race with known variances [K], and a known winner unless it is None; return class rounds.

    The test is that of RacingPruner with an infinite weight of the prior variance.
    """
    active, spent = np.arange(len(means)), 0
    total, sums = np.zeros(len(means)), np.zeros(len(means))
    for r in range(means.shape[1]):
        spent += len(active)
        now = means[active, r]
        if winner is not None:
            total[active] += now - means[winner, r]
        elif r:
            first, second = active[np.argpartition(sums[active], 1)[:2]]
            leader = np.where(active == first, second, first)
            total[active] += now - means[leader, r]
        sums[active] += now
        n = r + (winner is not None)
        if not n:
            continue
        needed = 2 * float(TEST.bound(np.float64(n)))
        t = total[active]
        worse = (t > 0) & (t**2 / (n + TEST.precision) >= needed * variance[active])
        best = active[sums[active].argmin()] if winner is None else winner
        active = active[~worse | (active == best)]
        if len(active) == 1:
            break
    return spent
