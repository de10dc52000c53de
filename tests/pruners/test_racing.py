"""RacingPruner: what it promises, on simulations whose infinite-draw answer is class 0."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstat
from scipy.stats import t as student

from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.pruners.round_tests import (
    RoundTest,
    Sums,
    behind_earlier_leader,
    prior_of_rivals,
    round_means,
)
from diffusion_classifier.pruners.running import RunningRounds
from tests.support.records import make_record

N, J = 200, 120


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def race(pruner, contributions, size=4):
    """Who is left of all images, and the evaluations of each."""
    n, p, j = contributions.shape
    active, spent = torch.ones(n, p, dtype=torch.bool), torch.zeros(n)
    seen = torch.full_like(contributions, torch.nan)
    for stop in range(size, j + 1, size):
        spent += size * active.sum(1) * (active.sum(1) > 1)
        new = slice(stop - size, stop)
        seen[..., new] = contributions[..., new].where(active[..., None], torch.nan)
        kept = pruner.select(seen[..., :stop], active, torch.arange(stop) // size)
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


def skewed(n, sign):
    """Differences of round means are one-sided: a shifted exponential of each draw."""
    draws = np.random.default_rng(1).exponential(size=(n, 10, J))
    return sign * torch.as_tensor(draws) + 0.02 * (torch.arange(10) > 0)[:, None]


PROBLEMS = {
    "periodic in t": periodic(N),
    "minus periodic in t": torch.stack([periodic(N)[:, 0], 0.1 - periodic(N)[:, 1]], 1),
    "heavy tails": heavy(N),
    "skewed to the right": skewed(N, 1),
    "skewed to the left": skewed(N, -1),
    "skewed rival, two classes": torch.stack([torch.zeros(N, J), skewed(N, 1)[:, 0] - 1 + 0.02], 1),
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


@pytest.mark.parametrize("name", ["minus periodic in t", "heavy tails", "skewed to the left"])
def test_a_learned_variance_keeps_the_promise(name):
    fit, raced = PROBLEMS[name].split(N // 2)
    record = make_record(fit, [0] * len(fit), round_of=torch.arange(J) // 4)
    pruner = RacingPruner(max_draws=J).learn(record, torch.ones(100).double())
    assert pruner.prior_rounds_ > 6  # so much that drops may rest on it from the start
    lost = int((~race(pruner, raced)[0][:, 0]).sum())
    assert beta.ppf(0.01, lost, len(raced) - lost + 1) <= 0.05 if lost else True


def test_a_variance_of_other_rounds_is_not_used():
    """Means of long rounds vary less: taken for those of short ones they would drop anyone."""
    record = make_record(normal(100, 10, J), [0] * 100, round_of=torch.arange(J) // 20)
    learned = RacingPruner(max_draws=J).learn(record, torch.ones(100).double())
    own, _ = race(RacingPruner(max_draws=J), PROBLEMS["exact ties"])
    assert torch.equal(race(learned, PROBLEMS["exact ties"])[0], own)


def test_racing_ends_with_all_prompts_of_one_class():
    """Prompts race one by one; two that are equally good keep each other."""
    contributions = 0.1 * normal(5, 4, 40) + torch.tensor([0.0, 0.0, 5.0, 6.0])[:, None]
    active = torch.ones(5, 4, dtype=torch.bool)
    class_of = torch.tensor([0, 0, 1, 1])
    kept = RacingPruner().select(contributions, active, torch.arange(40) // 2, class_of)
    assert not kept[:, 2:].any()
    assert kept[:, :2].all()


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


def test_the_variance_learned_is_that_of_a_rival_as_good_as_the_true_class():
    gap = 4 * torch.rand(400, 1, 1, generator=generator(), dtype=torch.float64) ** 2
    errors = torch.cat(
        [torch.zeros(400, 1, 200), gap + (2 + gap**2).sqrt() * normal(400, 1, 200)], 1
    )
    far = 50 + 9 * normal(400, 3, 200, seed=1)
    record = make_record(torch.cat([errors, far], 1), [0] * 400, round_of=torch.arange(200) // 4)
    pruner = RacingPruner().learn(record, torch.ones(100).double())
    assert pruner.deviation_ == pytest.approx(math.sqrt(2) / 2, rel=0.03)
    assert pruner.prior_rounds_ == 20.0


def test_a_learned_variance_is_never_below_what_was_seen():
    """Variance in proportion to the squared gap would be 0 at gap 0, and drop everyone."""
    gap = torch.linspace(1, 4, 100, dtype=torch.float64)[:, None, None]
    errors = torch.cat([torch.zeros(100, 1, 80), gap * (1 + normal(100, 1, 80))], 1)
    record = make_record(errors, [0] * 100, round_of=torch.arange(80) // 4)
    assert RacingPruner().learn(record, torch.ones(100).double()).deviation_ > 0.4


def test_a_profile_is_worth_little_where_images_differ():
    scale = torch.exp(1.5 * normal(200, 1, 1, seed=3))
    record = make_record(1 + scale * normal(200, 3, 80), [0] * 200)
    assert RacingPruner().learn(record, torch.ones(100).double()).prior_rounds_ < 3


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_few_images_do_not_tell_how_little_images_differ(n_images):
    record = make_record(1 + normal(n_images, 3, 80), [0] * n_images)
    pruner = RacingPruner().learn(record, torch.ones(100).double())
    assert pruner.prior_rounds_ <= n_images - 1


def test_a_record_of_one_round_is_refused_only_where_it_was_asked_for():
    record = make_record(torch.ones(1, 2, 4), [0])
    with pytest.raises(ValueError, match="at least 2 rounds"):
        RacingPruner(learn_profile=True).learn(record)
    assert not hasattr(RacingPruner().learn(record), "prior_rounds_")


def test_profile_needs_rivals_that_vary():
    with pytest.raises(ValueError, match="constant"):
        RacingPruner().learn(make_record(torch.ones(1, 2, 8), [0]))


def test_a_round_that_the_budget_cut_is_not_looked_at():
    contributions = torch.tensor([[[1.0, 3.0, 5.0, 7.0, 100.0]]])
    assert round_means(contributions, torch.tensor([0, 0, 1, 1, 2])).tolist() == [[[2.0, 6.0]]]
    assert round_means(contributions[..., :1], torch.tensor([0])).tolist() == [[[1.0]]]


def symmetric():
    """Differences without skewness at any even number of them, nor negative at any odd one."""
    return np.where(np.arange(40) % 2, 2.0, -0.5)


def first_crossing(d, alpha=0.05, tuned=3, least=32):
    """The smallest n at which the inequality holds; 32 draws show any event of probability 9 %."""
    odds = -2 * math.log(alpha)
    c2 = tuned / (odds + math.log(odds + 1))
    return next(
        n
        for n in range(least, len(d))
        if d[:n].sum() ** 2 / (n + c2)
        >= (1 - (0.5 + math.sqrt(1 + n / c2) / (2 * alpha)) ** (-2 / n)) * (d[:n] ** 2).sum()
    )


def test_boundary_is_the_closed_form():
    """Two classes: the first round finds the leader, the others are observations."""
    d = symmetric()
    contributions = torch.stack([torch.zeros(41), torch.as_tensor([0.5, *d])])[None].double()
    _, spent = race(RacingPruner(), contributions, size=1)
    wanted = first_crossing(d)
    assert wanted > 10
    assert spent.item() == 2 * (wanted + 1)


def test_more_classes_do_not_make_a_duel_longer():
    """alpha is not shared among classes: distant ones leave the others' evidence as it is."""
    d = symmetric()
    duel = torch.stack([torch.zeros(41), torch.as_tensor([0.5, *d])])[None].double()
    distant = 100 + 0.1 * normal(1, 50, 41)
    pruner = RacingPruner(prior_rounds=0)
    _, spent = race(pruner, torch.cat([duel, distant], 1), size=1)
    assert spent.item() == 2 * (first_crossing(d) + 1) + 50 * 5


def test_the_leader_that_a_class_is_held_against_was_chosen_before_the_round():
    means = normal(3, 5, 12).numpy()
    means[1, 4, 7:] = np.nan
    means[1, 2, 4:] = np.nan
    found = behind_earlier_leader(means)
    for b, k, r in np.ndindex(3, 5, 11):
        if np.isnan(means[b, k, r + 1]):
            assert np.isnan(found[b, k, r])
            continue
        others = [j for j in range(5) if j != k and not np.isnan(means[b, j, r + 1])]
        leader = min(others, key=lambda j: means[b, j, : r + 1].mean())
        expected = means[b, k, r + 1] - means[b, leader, r + 1]
        assert found[b, k, r] == pytest.approx(expected)


def test_of_equal_leaders_the_first_one_leads():
    """Whatever instructions the processor has: all machines find the same one."""
    means = np.zeros((2, 40, 3))
    means[..., 1] = np.arange(40)
    found = behind_earlier_leader(means)
    np.testing.assert_array_equal(found[0, :, 0], [-1.0, *range(1, 40)])
    np.testing.assert_array_equal(found[0, :, 1], np.zeros(40))


def test_constant_differences_have_no_skewness_but_for_rounding():
    d = np.full((1, 3, 8), [[0.1], [1 / 3], [1e-3]])
    test, sums = RoundTest(0.05, 3), Sums.of(d)
    correction = test.skewness_correction(sums, 0.0, 0.0)
    np.testing.assert_allclose(correction, 0, atol=1e-6)
    assert test.rejects(sums.n, sums.total - correction, sums.squares, 0.0, 0.0).all()


@pytest.mark.filterwarnings("error")
def test_selections_take_any_floats_and_do_not_warn():
    contributions = torch.randn(2, 3, 24, generator=generator(3)) + torch.arange(3)[:, None]
    active, round_of = torch.ones(2, 3, dtype=torch.bool), torch.arange(24) // 2
    expected = RacingPruner().select(contributions.double(), active, round_of)
    for values in (contributions, contributions.clone().requires_grad_()):
        assert torch.equal(RacingPruner().select(values, active, round_of), expected)
    contributions[:, 2] = torch.inf
    kept = RacingPruner().select(contributions, active, round_of)
    assert kept[:, 0].all()
    none = RunningRounds.join([RunningRounds.none(3)] * 2)
    rounds = none.after(contributions.double().numpy(), [2] * 12)
    assert RacingPruner().judge(rounds, active)[:, 0].all()


def test_negative_skewness_counts_as_in_johnsons_test_and_positive_does_not():
    d = np.random.default_rng(0).exponential(size=(1, 1, 30))
    test, none = RoundTest(0.05, 3), np.zeros(1)
    assert test.skewness_correction(Sums.of(d), none, none).item() == 0
    s2, third = d.var(ddof=1), kstat(d, 3)
    z2 = min(d.sum().item() ** 2 / (30 * s2), 2 * test.bound(np.array(30.0)))
    found = test.skewness_correction(Sums.of(-d), none, none).item()
    assert found == pytest.approx(third / s2 * (1 + 2 * z2) / 6)
    zeros = Sums.of(np.zeros((1, 1, 5)))
    assert test.skewness_correction(zeros, none, none).item() == 0


def test_sums_give_the_sample_moments():
    d = normal(2, 3, 9).numpy() ** 2
    sums = Sums.of(d)
    np.testing.assert_allclose(sums.variance, d.var(2, ddof=1))
    assert sums.third_moment[1, 2] == pytest.approx(kstat(d[1, 2], 3))


def test_a_class_that_varies_more_than_the_rivals_gains_little_from_them():
    """Rivals of variance 1 and 9 make 5 on average: it weighs 6 / 3 rounds, and 5/9 of it."""
    sign = np.array([1.0, -1.0] * 4)
    sums = Sums.of(np.stack([0 * sign, sign, 3 * sign])[None] * math.sqrt(7 / 8))
    rivals = np.array([[False, True, True]])
    variance, nu = prior_of_rivals(sums, rivals, 6.0)
    np.testing.assert_allclose(variance, [[5.0]])
    np.testing.assert_allclose(nu, [[2.0, 2.0, 2 * 5 / 9]])


def test_few_rivals_need_more_draws():
    """32 draws in total, so that events of probability 9 % per draw have shown at alpha 5 %."""
    for n_rivals, rounds in ((1, 16), (2, 8), (3, 6), (4, 4), (9, 4)):
        errors = (
            0.01 * normal(1, n_rivals + 1, 60) + torch.tensor([0.0] + [1.0] * n_rivals)[:, None]
        )
        active, spent = race(RacingPruner(), errors, size=2)
        assert active.sum() == 1
        assert spent.item() == 2 * (n_rivals + 1) * (rounds + 1)


def test_robust_races_wait_for_59_draws_whatever_was_learned():
    easy = normal(20, 10, 80) + 10 * (torch.arange(10) > 0)[:, None]
    record = make_record(easy, [0] * 20)
    learned = RacingPruner(robust=True).learn(record, torch.ones(100).double())
    for pruner in (RacingPruner(robust=True), learned):
        active, spent = race(pruner, easy)
        assert active.sum() == 20
        assert (spent == 10 * 4 * (15 + 1)).all()  # 15 rounds of 4 after the first


def test_the_screen_bounds_the_best_of_all_classes_by_a_fifth_of_alpha():
    record = make_record(normal(100, 10, 200), [0] * 100)
    pruner = RacingPruner().learn(record, torch.ones(100).double())
    # Round means of 4 draws differ with variance 2 / 4; t with 49 degrees of freedom.
    assert pruner.screen_ == pytest.approx(math.sqrt(0.5) * student.isf(0.01 / 9, 49), rel=0.05)
    assert pruner.screened_rivals_ == 9
    screened, _ = race(pruner, normal(4000, 10, 4, seed=5))
    assert 0.002 < 1 - screened[:, 0].double().mean() < 0.01


def test_the_screen_knows_that_images_differ():
    scale = torch.where(torch.arange(100) % 10 == 0, 4.0, 1.0)[:, None, None]
    record = make_record(scale * normal(100, 10, 200), [0] * 100)
    pruner = RacingPruner().learn(record, torch.ones(100).double())
    found = pruner.screen_ / math.sqrt(0.5)
    tail = 0.9 * student.sf(found, 49) + 0.1 * student.sf(found / 4, 49)
    assert tail == pytest.approx(0.01 / 9, rel=0.25)


@pytest.mark.parametrize("changes", [{"min_rounds": 2}, {"robust": True}])
def test_no_screen_where_it_is_not_wanted(changes):
    easy = normal(20, 10, 80) + 20 * (torch.arange(10) > 0)[:, None]
    record = make_record(easy, [0] * 20)
    weights = torch.ones(100).double()
    first = easy[..., :4], torch.ones(20, 10, dtype=torch.bool), torch.zeros(4, dtype=torch.long)
    assert RacingPruner().learn(record, weights).select(*first).sum() == 20
    assert RacingPruner(**changes).learn(record, weights).select(*first).all()


def test_more_rivals_than_recorded_are_not_screened():
    easy = normal(20, 10, 80) + 20 * (torch.arange(10) > 0)[:, None]
    pruner = RacingPruner().learn(make_record(easy[:, :9], [0] * 20), torch.ones(100).double())
    first = easy[..., :4], torch.ones(20, 10, dtype=torch.bool), torch.zeros(4, dtype=torch.long)
    assert pruner.select(*first).all()


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
