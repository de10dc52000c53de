"""Sums over rounds say the same as all draws, whatever was dropped on the way."""

import numpy as np
import pytest
import torch

from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.pruners.running import RunningRounds

B, P = 40, 6


def contributions(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(B, P, sum(sizes), generator=generator, dtype=torch.float64)
    values = noise.exp() + 0.5 * torch.arange(P)[None, :, None]
    values[: B // 2] = (2 * values[: B // 2]).round() / 2  # many ties
    return values


SIZES = [[2] * 30, [4] * 12 + [1], [5, 3, 6, 6, 6, 6, 6, 6, 2], [1] * 40]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("learned", [False, True])
def test_a_race_on_sums_drops_what_one_on_all_draws_drops(sizes, learned):
    pruner = RacingPruner(alpha=0.2)
    if learned:
        pruner.deviation_, pruner.prior_rounds_, pruner.round_size_ = 0.7, 6.0, sizes[0]
        pruner.screen_, pruner.screened_rivals_ = 3.0, P - 1
    values = contributions(sizes)
    round_of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    active = torch.ones(B, P, dtype=torch.bool)
    state, stop, n_drops = RunningRounds.join([RunningRounds.none(P)] * B), 0, 0
    for size in sizes:
        start, stop = stop, stop + size
        values[:, :, start:stop].masked_fill_(~active[..., None], torch.nan)
        state = state.after(values[:, :, start:stop].numpy(), [size])
        kept = pruner.judge(state, active)
        assert torch.equal(kept, pruner.select(values[:, :, :stop], active, round_of[:stop]))
        n_drops += int((active & ~kept).sum())
        active = kept
    assert n_drops > B


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_rounds_may_come_one_by_one_or_together(sizes):
    values = contributions(sizes, seed=1)
    round_of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    together = RunningRounds.of(values, round_of)
    at_once = RunningRounds.join([RunningRounds.none(P)] * B).after(values.numpy(), sizes)
    assert (at_once.n_rounds == together.n_rounds).all()
    assert at_once.first_size == together.first_size == sizes[0]
    np.testing.assert_allclose(at_once.values[:, :4], together.values[:, :4], 1e-12, 1e-9)


@pytest.mark.parametrize(
    "pruner", [RacingPruner(0.2), RacingPruner(0.2, robust=True, min_rounds=4)]
)
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[2]], ids=str)
def test_images_that_took_different_numbers_of_rounds_are_judged_in_one_call(sizes, pruner):
    values, active = contributions(sizes), torch.ones(B, P, dtype=torch.bool)
    stops = torch.tensor(sizes).cumsum(0).tolist()
    taken = [1 + image % len(sizes) for image in range(B)]
    states = [
        RunningRounds.none(P).after(values[[i], :, : stops[n - 1]].numpy(), sizes[:n])
        for i, n in enumerate(taken)
    ]
    kept = pruner.judge(RunningRounds.join(states), active)
    round_of = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    for i, n in enumerate(taken):
        draws = slice(stops[n - 1])
        own = pruner.select(values[[i], :, draws], active[[i]], round_of[draws])
        assert torch.equal(kept[i], own[0])
    assert int((~kept).sum()) > 0


def test_images_are_joined_and_split():
    values = contributions([2, 2]).numpy()
    state = RunningRounds.join([RunningRounds.none(P)] * B).after(values, [2, 2])
    again = RunningRounds.join(state.split())
    assert (again.values == state.values).all() and again.first_size == state.first_size == 2
    assert (again.counts == state.counts).all()


def test_a_subclass_with_a_selection_of_its_own_is_not_judged_by_sums():
    class Lenient(RacingPruner):
        def select(self, contributions, active, round_of, class_of=None):
            return active

    class Renamed(RacingPruner):
        pass

    assert RacingPruner.incremental and Renamed.incremental
    assert not Lenient.incremental
