r"""Intervals of an image's probabilities, as its race stands.

With log-odds ``l_k = log p_k / (1 - p_k)``, a small change of contributions c moves

    l_k  by  mean_j v_kj,    v_kj = (sum_{i != k} pi_i c_ij - c_kj) / T,    pi_i = p_i / (1 - p_k),

the delta method. Draws of one round depend on each other, rounds do not, so the standard error of
the mean comes from the means over rounds, and the 95 % interval of l_k is Student's. A class that
was dropped is compared on its own draws, with the classes that took them all. It is the interval at
one moment, of what chance does to the draws; the pruner looks many times, and has its own test.
"""

from __future__ import annotations

import torch
from scipy.stats import t as student
from torch import Tensor

from .class_losses import Scoring, contender_losses, count_draws

_LEVEL = 0.95


def probability_interval(
    scoring: Scoring,
    errors: Tensor,
    timesteps: Tensor,
    density: Tensor,
    active: Tensor,
    round_of: Tensor,
) -> Tensor:
    """Compute the 95 % interval of each class's probability.

    Parameters
    ----------
    scoring : Scoring
    errors : Tensor of shape (P, J)
        Errors of one image; NaN where not evaluated.
    timesteps, density, round_of : Tensor of shape (J,)
        Timestep, density and round of each draw.
    active : Tensor of shape (P,), dtype bool
        Prompts still in the race.

    Returns
    -------
    Tensor of shape (2, K), dtype float64
        Lower and upper ends; 0 and 1 after a single round. A class with several prompts counts
        with its best one.
    """
    n = count_draws(errors)
    timesteps, density, round_of = timesteps[:n], density[:n], round_of[:n]
    log_posterior = scoring.log_posterior_of(errors, timesteps, density, active)
    contributions = scoring.contributions(errors[:, :n], timesteps, density)
    scale = scoring.temperature(n) * scoring.doubt_of(contributions, timesteps)
    one_each = contributions[_best_of_classes(contributions, scoring.contenders(active), scoring)]
    n_draws = (~one_each.isnan()).sum(1)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64).repeat(1, scoring.n_classes)
    log_odds = log_posterior - torch.log(-torch.expm1(log_posterior.clamp(max=-1e-15)))
    for k in range(scoring.n_classes):
        m = int(n_draws[k])
        others = (n_draws >= max(m, 1)) & (torch.arange(scoring.n_classes) != k)
        n_rounds = len(round_of[:m].unique())
        if n_rounds < 2 or not bool(others.any()):
            continue
        share = log_posterior[others].softmax(0)
        moves = (share @ one_each[others, :m] - one_each[k, :m]) / scale
        excess = torch.bincount(round_of[:m], weights=moves - moves.mean()) / m
        error = (excess.square().sum() * n_rounds / (n_rounds - 1)).sqrt()
        half = float(error) * float(student.ppf((1 + _LEVEL) / 2, n_rounds - 1))
        ends[:, k] = torch.sigmoid(log_odds[k] + torch.tensor([-half, half]).double())
    return ends


def _best_of_classes(contributions: Tensor, active: Tensor, scoring: Scoring) -> Tensor:
    """Return the best contender of each class, [K]."""
    if scoring.races_classes:
        return torch.arange(scoring.n_classes)
    losses = contender_losses(contributions, active)
    own = scoring.class_of == torch.arange(scoring.n_classes)[:, None]
    return torch.where(own, losses, torch.inf).argmin(1)
