"""Intervals of probabilities: against a plain loop, and how often they hold the answer."""

import numpy as np
import torch
from scipy.special import logit
from scipy.stats import t as student

from diffusion_classifier.scoring import Scoring
from diffusion_classifier.scoring.interval import probability_interval

ROUND_OF = torch.arange(20) // 2
TIMESTEPS, DENSITY = torch.arange(20), torch.ones(20)


def scoring(n_classes):
    log_prior = torch.full((n_classes,), -np.log(n_classes), dtype=torch.float64)
    return Scoring(torch.ones(20, dtype=torch.float64), log_prior, torch.arange(n_classes))


def test_of_two_classes_it_is_students_interval_of_their_log_odds():
    errors = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)).double()
    args = errors, TIMESTEPS, DENSITY, torch.ones(2, dtype=torch.bool), ROUND_OF
    (low, high) = probability_interval(scoring(2), *args).numpy()
    means = (errors[1] - errors[0]).view(10, 2).mean(1).numpy()
    half = student.ppf(0.975, 9) * means.std(ddof=1) / 10**0.5
    np.testing.assert_allclose(logit(low[0]), means.mean() - half)
    np.testing.assert_allclose(logit(high[0]), means.mean() + half)
    np.testing.assert_allclose(low[1], 1 - high[0])


def test_a_single_round_says_nothing_and_dropped_classes_count_their_own_draws():
    errors = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)).double()
    everyone = torch.ones(3, dtype=torch.bool)
    first = probability_interval(scoring(3), errors[:, :2], TIMESTEPS, DENSITY, everyone, ROUND_OF)
    assert first.tolist() == [[0.0] * 3, [1.0] * 3]
    errors[2, 8:] = torch.nan
    low, high = probability_interval(
        scoring(3), errors, TIMESTEPS, DENSITY, torch.tensor([True, True, False]), ROUND_OF
    )
    assert bool((low > 0).all()) and bool((low < high).all()) and bool((high < 1).all())


def test_it_holds_the_answer_of_infinitely_many_draws_in_95_of_100_races():
    rng = np.random.default_rng(0)
    mean = np.array([0.0, 0.3, 0.6])
    true = np.exp(-mean) / np.exp(-mean).sum()
    held = []
    for _ in range(400):
        errors = torch.as_tensor(mean[:, None] + rng.normal(size=(3, 20)))
        low, high = probability_interval(
            scoring(3), errors, TIMESTEPS, DENSITY, torch.ones(3, dtype=torch.bool), ROUND_OF
        ).numpy()
        held.append((low <= true) & (true <= high))
    assert 0.93 <= np.mean(held) <= 0.98
