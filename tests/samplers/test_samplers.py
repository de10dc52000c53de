from itertools import islice

import numpy as np
import pytest
import torch

from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.noise.draws import keyed_noise
from diffusion_classifier.race import DrawTape
from diffusion_classifier.samplers import EvenSampler, FixedDraws, StratifiedSampler

SCHEDULE = NoiseSchedule.flow(1000)


def take(sampler, n, seed=0):
    return list(islice(sampler.rounds(SCHEDULE, seed), n))


def test_noise_is_keyed_by_seed_and_draw_alone():
    first, second = take(StratifiedSampler(4), 2)
    again = take(StratifiedSampler(4), 2)[1]
    noise = second.noise((3, 5))
    assert torch.equal(noise, again.noise((3, 5)))
    assert torch.equal(noise[1], keyed_noise(0, 5, (3, 5)))
    assert not torch.equal(noise, first.noise((3, 5)))
    other_seed = take(StratifiedSampler(4), 2, seed=1)[1]
    assert not torch.equal(noise, other_seed.noise((3, 5)))


def test_noise_is_standard_normal_and_uncorrelated_between_draws():
    noise = torch.cat([d.noise((500,)) for d in take(StratifiedSampler(4), 100)])  # 400 draws
    assert abs(noise.mean().item()) < 4 / np.sqrt(noise.numel())
    assert abs(noise.var().item() - 1) < 4 * np.sqrt(2 / noise.numel())
    correlation = torch.corrcoef(noise).fill_diagonal_(0).abs().max().item()
    assert correlation < 5.5 / np.sqrt(500)


def test_every_round_is_stratified_and_every_prefix_covers_the_range_evenly():
    rounds = take(StratifiedSampler(5), 40)
    for draws in rounds:
        assert sorted((draws.timesteps // 200).tolist()) == [0, 1, 2, 3, 4]
    first_twenty = torch.cat([d.timesteps for d in rounds[:20]])
    assert torch.bincount(first_twenty // 200).tolist() == [20] * 5


def test_timesteps_are_uniform_and_rounds_independent():
    times = torch.stack([d.timesteps for d in take(StratifiedSampler(4), 5000)]).double()
    shifts = times[:, 0] / 250
    counts = torch.histc(shifts, 10, 0, 1)
    chi2 = ((counts - 500) ** 2 / 500).sum().item()
    assert chi2 < 27.9  # 99.9 % point of chi-square with 9 degrees of freedom
    lag_one = torch.corrcoef(torch.stack([shifts[1:], shifts[:-1]]))[0, 1].item()
    assert abs(lag_one) < 4 / np.sqrt(5000)


def test_plain_random_timesteps_are_independent_within_a_round():
    times = torch.stack(
        [d.timesteps for d in take(StratifiedSampler(2, stratified=False), 4000)]
    ).double()
    assert abs(torch.corrcoef(times.T)[0, 1].item()) < 4 / np.sqrt(4000)
    assert times.min() < 5 and times.max() > 994


def test_antithetic_draws_pair_opposite_noise_at_one_timestep():
    draws = take(StratifiedSampler(6, antithetic=True), 2)[1]
    noise = draws.noise((7,))
    assert torch.equal(noise[0::2], -noise[1::2])
    assert torch.equal(draws.timesteps[0::2], draws.timesteps[1::2])
    assert draws.noise_keys == (3, 3, 4, 4, 5, 5)


def test_antithetic_pairs_are_not_split_by_the_budget():
    tape = DrawTape(StratifiedSampler(4, antithetic=True).rounds(SCHEDULE, 0), max_draws=7)
    assert [len(tape[i]) for i in range(2)] == [4, 2]
    assert tape[2] is None and tape.n_draws == 6


def test_odd_antithetic_rounds_are_refused():
    with pytest.raises(ValueError, match="round_size=3 must be even"):
        take(StratifiedSampler(3, antithetic=True), 1)


@pytest.mark.parametrize(
    "stages, sizes", [((20, 50, 100, 500), [20, 50, 80, 350]), ((10, 100), [10, 90])]
)
def test_even_stages_concatenate_the_published_grids(stages, sizes):
    rounds = take(EvenSampler(stages), 9)
    assert [len(d) for d in rounds] == sizes
    everything = torch.cat([d.timesteps for d in rounds]).tolist()
    assert len(set(everything)) == len(everything)
    start = 1000 // stages[-1] // 2  # the published script's own words
    grid = list(range(start, 1000, 1000 // stages[-1]))[: stages[-1]]
    first = grid[len(grid) // stages[0] // 2 :: len(grid) // stages[0]][: stages[0]]
    assert rounds[0].timesteps.tolist() == first


@pytest.mark.parametrize("stages", [(), (20, 10), (0, 5), (2.5,), (20, 2000)])
def test_impossible_stages_are_refused(stages):
    with pytest.raises(ValueError, match="stages"):
        take(EvenSampler(stages), 1)


def test_fixed_draws_are_taken_as_given():
    noise = torch.randn(3, 2)
    first, second = take(FixedDraws([900, 5, 5], noise, round_size=2), 9)
    assert first.timesteps.tolist() == [900, 5] and second.timesteps.tolist() == [5]
    assert torch.equal(torch.cat([first.noise((2,)), second.noise((2,))]), noise)
    with pytest.raises(ValueError, match=r"latents of this backend have shape \(4,\)"):
        first.noise((4,))


@pytest.mark.parametrize(
    "timesteps, noise",
    [([], None), ([1000], None), ([-1], None), ([1.5], None), ([1], [[0.0], [1.0]])],
)
def test_impossible_fixed_draws_are_refused(timesteps, noise):
    with pytest.raises(ValueError, match="timesteps"):
        take(FixedDraws(timesteps, noise), 1)


def test_the_tape_cuts_the_last_round_at_the_budget():
    tape = DrawTape(StratifiedSampler(4).rounds(SCHEDULE, 0), max_draws=6)
    assert tape[1] is not None and len(tape[1]) == 2
    assert tape[2] is None
    assert tape.round_of.tolist() == [0, 0, 0, 0, 1, 1]
    assert len(tape.timesteps) == len(tape.density) == 6
