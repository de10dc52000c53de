import math
from dataclasses import replace

import pytest
import torch

from diffusion_classifier.scoring.class_losses import Scoring, contender_losses

NAN = math.nan
ALL = torch.tensor([True, True, True])


def scoring(reduction="best", class_of=(0, 0, 1), prior=(0.5, 0.5)):
    return Scoring(
        weights=torch.tensor([1.0, 2.0, 4.0]).double(),
        log_prior=torch.tensor(prior).double().log(),
        class_of=torch.tensor(class_of),
        reduction=reduction,
    )


def test_contributions_weigh_errors_and_subtract_the_log_prior():
    errors = torch.tensor([[1.0, 1.0], [2.0, 3.0], [NAN, 1.0]])
    result = scoring(prior=(0.25, 0.75)).contributions(
        errors, torch.tensor([2, 0]), torch.tensor([2.0, 0.5])
    )
    a, b = math.log(0.25), math.log(0.75)
    expected = torch.tensor([[2 - a, 2 - a], [4 - a, 6 - a], [NAN, 2 - b]])
    torch.testing.assert_close(result, expected.double(), equal_nan=True)


def test_complete_races_are_compared_by_their_means():
    contributions = torch.tensor([[1.0, 3.0], [5.0, 1.0], [0.0, 0.0]]).double()
    assert contender_losses(contributions, ALL).tolist() == [2.0, 3.0, 0.0]


def test_a_dropped_contender_is_compared_on_common_draws():
    # Draw 2 is hard for everyone: by raw means the dropped one (4.0) would beat both survivors.
    contributions = torch.tensor([[3.0, 3.0, 9.0], [3.5, 3.5, 10.0], [4.0, 4.0, NAN]]).double()
    losses = contender_losses(contributions, torch.tensor([True, True, False]))
    assert losses[:2].tolist() == pytest.approx([5.0, 17 / 3])
    assert losses[2].item() == pytest.approx(5.0 + (4.0 - 3.0))  # its dropper's plus the gap


def test_the_chain_of_droppers_is_followed():
    contributions = torch.tensor(
        [
            [2.0, 4.0, 6.0, 8.0],  # wins: 5.0
            [1.0, 5.0, 9.0, NAN],  # dropped after 3 by prompt 0 (mean 4): 5 + (5 - 4) = 6
            [2.0, NAN, NAN, NAN],  # dropped after 1 by prompt 1 (leads at 1): 6 + (2 - 1) = 7
        ]
    ).double()
    losses = contender_losses(contributions, torch.tensor([True, False, False]))
    assert losses.tolist() == pytest.approx([5.0, 6.0, 7.0])


def test_a_dropped_contender_is_never_first():
    # Prompt 2 was level with the leader when it was dropped, and its dropper fell behind.
    contributions = torch.tensor([[2.0, 0.0], [1.0, 5.0], [1.0, NAN]]).double()
    contributions[2, 0] = 0.0
    losses = contender_losses(contributions, torch.tensor([True, True, False]))
    assert losses.argmin() == 0
    assert torch.log_softmax(-losses, 0).argmax() == 0
    assert losses[2].item() >= 1.0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e9])
def test_the_clip_survives_the_softmax(scale, temperature):
    contributions = torch.tensor([[0.5, NAN], [1.0, 1.0]]).double() * scale
    losses = contender_losses(contributions, torch.tensor([False, True]), temperature)
    proba = torch.softmax(-losses / temperature, 0)
    assert proba[1] > proba[0]


def test_a_class_dropped_at_the_last_look_is_behind_though_it_took_all_draws():
    contributions = torch.tensor([[1.0, 3.0], [5.0, 1.0], [0.0, 0.0]]).double()
    losses = contender_losses(contributions, torch.tensor([False, True, False]))
    assert losses.argmin() == 1
    assert losses[1].item() == 3.0


def test_many_dropped_prompts_do_not_outweigh_one_survivor_in_a_mixture():
    # Both prompts of class 0 were level with the leader; class 1's second prompt is hopeless.
    contributions = torch.tensor([[1.0, NAN], [1.0, NAN], [1.0, 1.0], [9.0, NAN]]).double()
    scores = scoring("mixture", class_of=(0, 0, 1, 1))
    losses = scores.class_losses(contributions, torch.tensor([False, False, True, False]))
    assert losses[1].item() == pytest.approx(1 - math.log((1 + math.exp(-8)) / 2))
    assert losses.argmin() == 1


@pytest.mark.parametrize("reduction", ["best", "mean", "mixture"])
def test_a_temperature_tempers_the_errors_and_not_the_priors(reduction):
    draws = torch.tensor([0, 0]), torch.ones(2)
    errors = torch.tensor([[1.0, 3.0], [4.0, 2.0], [1.0, 5.0]])
    tempered = scoring(reduction, prior=(0.2, 0.8))
    tempered = replace(tempered, log_temperature=(math.log(8), -1.0))  # T = 8 / 2 draws
    divided = scoring(reduction, prior=(0.2, 0.8)).log_posterior_of(errors / 4, *draws, ALL)
    torch.testing.assert_close(tempered.log_posterior_of(errors, *draws, ALL), divided)
    equal = torch.ones(3, 2)
    assert tempered.log_posterior_of(equal, *draws, ALL).exp().tolist() == pytest.approx([0.2, 0.8])


def test_prompt_reductions():
    contributions = torch.tensor([[1.0, 2.0], [2.0, 5.0], [4.0, 4.0]]).double()
    assert scoring("best").class_losses(contributions, ALL).tolist() == [1.5, 4.0]
    mixture = scoring("mixture").class_losses(contributions, ALL)
    expected = -math.log((math.exp(-1.5) + math.exp(-3.5)) / 2)
    assert mixture.tolist() == pytest.approx([expected, 4.0])
    errors = contributions + math.log(0.5)
    mean = scoring("mean").contributions(errors, torch.zeros(2, dtype=int), torch.ones(2))
    assert mean.tolist() == [[1.5, 3.5], [4.0, 4.0]]
    assert scoring("mean").class_losses(mean, ALL[:2]).tolist() == [2.5, 4.0]


def test_contenders_are_classes_only_under_mean():
    active = torch.tensor([[True, True, False]])
    assert scoring("best").contenders(active).tolist() == [[True, True, False]]
    assert scoring("mean").contenders(active).tolist() == [[True, False]]
    assert scoring("mean").prompts(torch.tensor([[False, True]])).tolist() == [[False, False, True]]


def test_a_race_is_decided_when_survivors_share_a_class():
    active = torch.tensor([[True, True, False], [True, False, True], [False, False, True]])
    assert scoring().decided(active).tolist() == [True, False, True]
