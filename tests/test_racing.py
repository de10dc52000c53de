"""RacingPruner: what it promises, on simulations whose infinite-draw answer is class 0."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta

from diffusion_classifier.racing import RacingPruner, round_means

from .test_profile import make_record

N, J = 200, 120


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def race(pruner, contributions, size=4):
    """Who is left of all images, and the evaluations of each."""
    n, p, j = contributions.shape
    active, spent = torch.ones(n, p, dtype=torch.bool), torch.zeros(n)
    for stop in range(size, j + 1, size):
        spent += size * active.sum(1) * (active.sum(1) > 1)
        seen = contributions[..., :stop].where(active[..., None], torch.nan)
        kept = pruner.select(seen, active, torch.arange(stop) // size)
        active = kept.where((active.sum(1) > 1)[:, None], active)
    return active, spent


def periodic(n, size=4):
    shift = torch.rand(n, J // size, 1, generator=generator(), dtype=torch.float64)
    u = ((shift + torch.arange(size)) / size).reshape(n, J)
    return torch.stack([torch.zeros(n, J), 0.05 + torch.cos(8 * math.pi * u)], 1)


def heavy(n):
    t = np.random.default_rng(0).standard_t(3, size=(n, 10, J))
    return torch.as_tensor(t) + 0.05 * (torch.arange(10) > 0)[:, None]


def correlated(n):
    common = normal(n, 1, J) * torch.linspace(0, 1, 10)[:, None]
    return common + 0.3 * normal(n, 10, J, seed=1) + 0.02 * (torch.arange(10) > 0)[:, None]


def unequal(n):
    """The winner varies 8 times as much as the last rival, and ties come first."""
    return normal(n, 10, J) * torch.linspace(8, 1, 10)[:, None]


PROBLEMS = {
    "periodic in t": periodic(N),
    "minus periodic in t": torch.stack([periodic(N)[:, 0], 0.1 - periodic(N)[:, 1]], 1),
    "heavy tails": heavy(N),
    "exact ties": normal(N, 10, J),
    "correlated classes": correlated(N),
    "unequal variances": unequal(N),
    "two classes, near tie": normal(N, 2, J) + 0.01 * torch.arange(2)[:, None],
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_best_class_is_dropped_in_at_most_alpha_of_races(name):
    active, _ = race(RacingPruner(max_draws=J), PROBLEMS[name])
    lost = int((~active[:, 0]).sum())
    # Not refuted at 1 %: the promise is 0.05 whatever the number of looks and classes.
    assert beta.ppf(0.01, lost, N - lost + 1) <= 0.05 if lost else True
    assert active.any(1).all()


def test_distant_rivals_are_dropped_at_the_first_look_and_ties_are_kept():
    contributions = 0.1 * normal(20, 6, 40)
    contributions[:, 3:] += 5
    first = RacingPruner(min_rounds=5).select(
        contributions[..., :20], torch.ones(20, 6, dtype=torch.bool), torch.arange(20) // 4
    )
    assert not first[:, 3:].any()
    assert first[:, :3].float().mean() > 0.95


def test_a_learned_profile_halves_the_price_of_easy_races():
    def images(seed):
        gap = torch.tensor([0.0, 1, 2, 2, 3, 3, 3, 4, 4, 4])[:, None]
        return (0.5 * gap + 0.5) * normal(100, 10, 80, seed=seed) + 2 * gap

    record = make_record(images(1), [0] * 100, round_of=torch.arange(80) // 4)
    learned = RacingPruner(max_draws=80).learn(record, torch.ones(100).double())
    active, with_profile = race(learned, images(2))
    assert active[:, 0].all()
    unlearned = race(RacingPruner(max_draws=80), images(2))[1]
    assert with_profile.mean() < 0.75 * unlearned.mean()


def test_profile_learns_how_variance_grows_with_the_gap():
    gap = torch.arange(5.0)[:, None]
    errors = (2 + gap**2).sqrt() * normal(200, 5, 200)
    errors[:, :1] = 0
    record = make_record(errors + 3 * gap, [0] * 200, round_of=torch.arange(200) // 4)
    pruner = RacingPruner().learn(record, torch.ones(100).double())
    assert pruner.floor_ == pytest.approx(math.sqrt(2) / 2, rel=0.03)
    assert pruner.kappa_ == pytest.approx(1 / 2 / 3, rel=0.03)
    assert pruner.prior_rounds_ == 20.0


def test_a_profile_is_worth_little_where_images_differ():
    scale = torch.exp(1.5 * normal(200, 3, 1, seed=3))
    record = make_record(1 + scale * normal(200, 3, 80), [0] * 200)
    assert RacingPruner().learn(record, torch.ones(100).double()).prior_rounds_ < 3


def test_profile_needs_rounds_and_images():
    with pytest.raises(ValueError, match="at least 2 rounds"):
        RacingPruner().learn(make_record(torch.ones(1, 2, 4), [0]))
    with pytest.raises(ValueError, match="constant"):
        RacingPruner().learn(make_record(torch.ones(1, 2, 8), [0]))


def test_a_round_that_the_budget_cut_is_not_looked_at():
    contributions = torch.tensor([[[1.0, 3.0, 5.0, 7.0, 100.0]]])
    assert round_means(contributions, torch.tensor([0, 0, 1, 1, 2])).tolist() == [[[2.0, 6.0]]]
    assert round_means(contributions[..., :1], torch.tensor([0])).tolist() == [[[1.0]]]


def test_boundary_is_the_closed_form():
    """Two classes, equal rounds but one: the smallest n at which the inequality holds."""
    alpha, tuned = 0.05, 6
    odds = -2 * math.log(alpha)
    precision = tuned / (odds + math.log(odds + 1))
    d = np.where(np.arange(30) % 2, 1.5, 0.5)
    wanted = next(
        n
        for n in range(4, 30)
        if d[:n].sum() ** 2 / (n + precision)
        >= (1 - (0.5 + math.sqrt(1 + n / precision) / (2 * alpha)) ** (-2 / n)) * (d[:n] ** 2).sum()
    )
    contributions = torch.stack([torch.zeros(30), torch.as_tensor(d)])[None].double()
    _, spent = race(RacingPruner(), contributions, size=1)
    assert spent.item() == 2 * wanted


def test_neighbours_and_dropped_classes_do_not_matter():
    contributions, round_of = PROBLEMS["heavy tails"][:8, :, :80], torch.arange(80) // 4
    active = torch.ones(8, 10, dtype=torch.bool)
    active[:, 4] = False
    contributions = contributions.where(active[..., None], torch.nan)
    together = RacingPruner().select(contributions, active, round_of)
    assert not together[:, 4].any()
    for k in range(8):
        alone = RacingPruner().select(contributions[k : k + 1], active[k : k + 1], round_of)
        assert torch.equal(alone[0], together[k])


def test_one_contender_is_never_dropped():
    active = torch.tensor([[True]])
    assert RacingPruner().select(torch.ones(1, 1, 40).double(), active, torch.arange(40)).all()


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({"alpha": 0}, "alpha=0"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"min_rounds": 0}, "min_rounds=0"),
        ({"prior_rounds": -1}, "prior_rounds=-1"),
        ({"tuned_round": 0.5}, "tuned_round=0.5"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        RacingPruner(**arguments).select(
            PROBLEMS["exact ties"], torch.ones(N, 10, dtype=torch.bool), torch.arange(J) // 4
        )


def test_a_record_is_asked_for_only_on_demand():
    assert not RacingPruner().needs_record
    assert RacingPruner(learn_profile=True).needs_record
