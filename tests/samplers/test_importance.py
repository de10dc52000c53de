from itertools import islice

import pytest
import torch

from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.samplers import ImportanceSampler
from tests.support.records import T, make_record

SCHEDULE = NoiseSchedule.flow(T)
PROPOSAL = torch.linspace(0, 1, T) ** 3


def rounds(sampler, n, seed=0):
    return list(islice(sampler.rounds(SCHEDULE, seed), n))


def test_timesteps_come_as_often_as_proposed_and_density_says_so():
    draws = rounds(ImportanceSampler(proposal=PROPOSAL, uniform_share=0.3), 5000)
    timesteps = torch.cat([d.timesteps for d in draws])
    wanted = 0.7 * PROPOSAL.double() / PROPOSAL.double().sum() + 0.3 / T
    assert torch.allclose(
        timesteps.bincount(minlength=T) / len(timesteps), wanted.float(), atol=3e-3
    )
    density = torch.cat([d.density for d in draws])
    assert torch.allclose(density, T * wanted[timesteps], rtol=1e-6)
    assert density.min() >= 0.3


def test_estimates_are_unbiased_and_less_variable_than_uniform_ones():
    integrand = PROPOSAL.double()
    means = torch.stack(
        [
            (integrand[d.timesteps] / d.density).mean()
            for d in rounds(ImportanceSampler(1, proposal=PROPOSAL, uniform_share=0.1), 4000)
        ]
    )
    assert means.mean().item() == pytest.approx(integrand.mean().item(), rel=0.02)
    assert means.std() < 0.4 * integrand.std()


def test_rounds_are_stratified_and_pairs_stay_together():
    (draws,) = rounds(ImportanceSampler(8, proposal=torch.ones(T), antithetic=True), 1)
    assert draws.timesteps.tolist()[::2] == draws.timesteps.tolist()[1::2]
    assert (draws.timesteps[::2] // 25).tolist() == [0, 1, 2, 3]
    assert draws.signs == (1, -1) * 4
    assert draws.density.tolist() == pytest.approx([1.0] * 8)


def test_the_proposal_is_learned_as_weight_times_rms():
    errors = torch.zeros(3, 2, T)
    errors[:, 1] = torch.where(torch.arange(T) < 50, 3.0, 1.0)
    weights = torch.ones(T).double()
    weights[60:] = 0.5
    sampler = ImportanceSampler().learn(make_record(errors, [0] * 3), weights)
    ratios = sampler.proposal_[[20, 55, 80]] / sampler.proposal_[80]
    assert ratios[0].item() == pytest.approx(6, rel=1e-3)
    (draws,) = rounds(sampler, 1)
    assert len(draws) == 2
    assert ImportanceSampler().needs_record and not ImportanceSampler(proposal=[1]).needs_record


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({}, "no proposal"),
        ({"proposal": [1.0]}, "each of the 100 timesteps"),
        ({"proposal": -PROPOSAL}, r"proposal\[\d+\]=-.* finite and at least 0"),
        ({"proposal": PROPOSAL, "uniform_share": 0}, "uniform_share=0"),
    ],
)
def test_impossible_proposals_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        rounds(ImportanceSampler(**arguments), 1)
