import pytest
import torch

from diffusion_classifier.pruners import NoPruning, StagedPruner

CONTRIBUTIONS = torch.tensor([[[3.0, 3.0], [1.0, 1.5], [2.0, 2.5], [9.0, 0.0]]]).double()
ALL = torch.ones(1, 4, dtype=torch.bool)
ROUNDS = torch.tensor([0, 1])


def test_no_pruning_keeps_everyone():
    assert torch.equal(NoPruning(5).select(CONTRIBUTIONS, ALL, ROUNDS), ALL)
    assert NoPruning(5).max_evaluations(4) == 20


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
        (((20,), (0,), 200), "keep=0"),
        (((20,), (5,), 20), "must be above the last cut"),
    ],
)
def test_impossible_stages_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        StagedPruner(*arguments).select(CONTRIBUTIONS, ALL, ROUNDS)
