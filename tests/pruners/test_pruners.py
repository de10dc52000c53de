import pytest
import torch
from scipy.stats import ttest_rel

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.pruners import (
    NoPruning,
    PairedTestPruner,
    RacingPruner,
    StagedPruner,
    ThresholdPruner,
)
from tests.support.records import make_record

CONTRIBUTIONS = torch.tensor([[[3.0, 3.0], [1.0, 1.5], [2.0, 2.5], [9.0, 0.0]]]).double()
ALL = torch.ones(1, 4, dtype=torch.bool)
ROUNDS = torch.tensor([0, 1])


def test_no_pruning_keeps_everyone():
    assert torch.equal(NoPruning(5).select(CONTRIBUTIONS, ALL, ROUNDS), ALL)
    assert NoPruning(5).max_evaluations(4) == 20


@pytest.mark.parametrize(
    "pruner",
    [NoPruning(), PairedTestPruner(), RacingPruner(), StagedPruner(), ThresholdPruner(1.0)],
    ids=lambda pruner: type(pruner).__name__,
)
def test_every_pruner_checks_its_parameters_before_it_selects(pruner):
    assert pruner.select(CONTRIBUTIONS, ALL, ROUNDS).all()
    pruner = pruner.set_params(max_draws=0)
    with pytest.raises(InputValueError, match="max_draws=0"):
        pruner.select(CONTRIBUTIONS, ALL, ROUNDS)


def test_paired_test_needs_two_draws_for_a_variance():
    pruner = PairedTestPruner(1, p_value=0.4)
    assert pruner.select(CONTRIBUTIONS[..., :1], ALL, ROUNDS[:1]).all()


def test_staged_keeps_the_smallest_means_once_a_cut_is_reached():
    pruner = StagedPruner((2, 3), (2, 1), max_draws=5)
    assert pruner.select(CONTRIBUTIONS[:, :, :1], ALL, ROUNDS[:1]).all()
    kept = pruner.select(CONTRIBUTIONS, ALL, ROUNDS)
    assert kept.tolist() == [[False, True, True, False]]
    third = torch.cat([CONTRIBUTIONS, CONTRIBUTIONS[..., :1]], 2)
    assert pruner.select(third, kept, ROUNDS).tolist() == [[False, True, False, False]]


def test_staged_never_revives_a_dropped_prompt():
    active = torch.tensor([[True, False, True, True]])
    contributions = CONTRIBUTIONS.masked_fill(~active[..., None], torch.nan)
    kept = StagedPruner((2,), (2,), max_draws=5).select(contributions, active, ROUNDS)
    assert kept.tolist() == [[True, False, True, False]]


def test_staged_looks_only_at_its_cuts():
    pruner = StagedPruner((20, 50), (5, 2), max_draws=200)
    assert [pruner.next_look(n) for n in (0, 19, 20, 50, 199)] == [20, 20, 50, 200, 200]


def test_staged_cost_counts_every_stage():
    pruner = StagedPruner((50, 100, 500), (500, 50, 10), max_draws=1000)
    assert pruner.max_evaluations(1000) == 50_000 + 25_000 + 20_000 + 5_000
    assert StagedPruner((20,), (1,), max_draws=200).max_evaluations(10) == 200


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (((20,), (5, 2), 200), "one entry per cut"),
        (((50, 20), (5, 2), 200), "must increase"),
        (((20, 50), (2, 5), 200), "must increase"),
        (((20,), (0,), 200), r"keep\[0\]=0 must be a positive integer"),
        (((20,), (5,), 20), "must be above the last cut"),
    ],
)
def test_impossible_stages_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        StagedPruner(*arguments).select(CONTRIBUTIONS, ALL, ROUNDS)


def test_paired_test_is_the_one_sided_paired_t_test():
    generator = torch.Generator().manual_seed(0)
    contributions = torch.randn(30, 8, 20, generator=generator).double()
    contributions += torch.linspace(0, 1.5, 8)[:, None]
    active = torch.ones(30, 8, dtype=torch.bool)
    active[:, 3] = False
    seen = contributions.where(active[..., None], torch.nan)
    kept = PairedTestPruner(20, p_value=0.01).select(seen, active, torch.arange(20))
    for row, of_image in zip(kept, contributions, strict=True):
        leader = of_image.mean(1).where(active[0], torch.inf).argmin()
        for p in set(range(8)) - {3, int(leader)}:
            test = ttest_rel(of_image[p], of_image[leader], alternative="greater")
            assert bool(row[p]) == (test.pvalue >= 0.01)
        assert row[leader] and not row[3]
    assert 0 < kept[:, 1:].sum() < 30 * 6


def test_paired_test_waits_for_its_first_look():
    pruner = PairedTestPruner(4, p_value=0.4)
    assert pruner.select(CONTRIBUTIONS, ALL, ROUNDS).all()
    assert [pruner.next_look(n) for n in (0, 3, 4, 9)] == [4, 4, 5, 10]
    with pytest.raises(ValueError, match=r"p_value=0\.5"):
        PairedTestPruner(p_value=0.5).select(CONTRIBUTIONS, ALL, ROUNDS)


def test_threshold_is_on_the_cumulative_gap():
    keep = ThresholdPruner(2.0, min_draws=2).select(CONTRIBUTIONS, ALL, ROUNDS)
    assert keep.tolist() == [[False, True, True, False]]  # gaps 3.5, 0, 2, 6.5
    assert ThresholdPruner(0.0, min_draws=3).select(CONTRIBUTIONS, ALL, ROUNDS).all()
    assert not ThresholdPruner(2.0).needs_record


def test_threshold_is_learned_from_how_far_true_classes_fell_behind():
    behind = torch.zeros(11, 2, 8)
    behind[:, 0, 3] = torch.arange(11.0)  # the true class's worst draw,
    behind[:, 1, 4:] = 100.0  # made good later
    behind[10, 0] = 1000.0  # the full record gets this image wrong: it says nothing
    record = make_record(behind, [0] * 11)
    pruner = ThresholdPruner(error=0.0)
    assert pruner.needs_record
    assert pruner.learn(record).threshold_ == 9.0
    assert ThresholdPruner(error=0.5).learn(record).threshold_ == 5.0
    n_draws = record.errors.shape[2]
    late = ThresholdPruner(error=0.0, min_draws=n_draws + 1)  # a budget that allows no cut
    last = ThresholdPruner(error=0.0, min_draws=n_draws)
    assert late.learn(record).threshold_ == last.learn(record).threshold_
    with pytest.raises(ValueError, match="none of the 1 recorded"):
        ThresholdPruner().learn(make_record(behind[10:], [0]))


@pytest.mark.parametrize(
    "threshold, complaint", [(None, "no threshold"), (-1.0, "-1.0 must be a finite number >= 0")]
)
def test_a_threshold_is_needed(threshold, complaint):
    with pytest.raises(ValueError, match=complaint):
        ThresholdPruner(threshold).select(CONTRIBUTIONS, ALL, ROUNDS)
