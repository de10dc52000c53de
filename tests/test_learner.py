import pytest
import torch

from diffusion_classifier.learner import Profile
from tests.support.records import T, make_record


def test_differences_are_rivals_less_the_best_prompt_of_the_true_class():
    errors = torch.tensor([[[5.0, 5.0], [1.0, 2.0], [4.0, 6.0]], [[1.0, 1.0], [9.0, 9.0], [3, 4]]])
    record = make_record(errors, [0, 1], class_of=[0, 0, 1])
    first, second = record.paired_differences()
    assert first.tolist() == [[3.0, 4.0]]
    assert second.tolist() == [[-2.0, -3.0], [6.0, 5.0]]


def test_weighted_differences_are_those_of_contributions():
    record = make_record(
        torch.tensor([[[1.0, 1.0], [3.0, 5.0]]]),
        [0],
        timesteps=torch.tensor([0, 9]),
        density=torch.tensor([0.5, 2.0]).double(),
        log_prior=torch.tensor([-1.0, -2.0]).double(),
    )
    weights = torch.ones(T).double()
    weights[9] = 3
    (differences,) = record.paired_differences(weights)
    assert differences.tolist() == [[2 * 2 + 1.0, 4 * 1.5 + 1.0]]


def test_profile_finds_the_timesteps_that_tell_classes_apart():
    generator = torch.Generator().manual_seed(0)
    u = torch.arange(400) % T / T
    mean, deviation = torch.sin(torch.pi * u), 0.5 + u
    noise = torch.randn(200, 3, 400, generator=generator) * deviation
    noise[:, 1:] += 4
    noise[:, 1:] += mean
    profile = Profile.learn(make_record(noise, [0] * 200))
    scale = torch.sqrt(((4 + mean) ** 2 + 2 * deviation**2).mean())
    inner = slice(10, 90)
    assert torch.allclose(profile.mean[inner].float(), ((4 + mean) / scale)[inner], atol=0.03)
    expected = (2 * deviation**2 / scale**2)[inner]
    assert torch.allclose(profile.variance[inner].float(), expected, rtol=0.15)
    assert torch.allclose(profile.rms**2, profile.variance + profile.mean**2)


def test_distant_rivals_count_no_more_than_close_ones():
    errors = torch.zeros(1, 3, T)
    errors[0, 1] = torch.where(torch.arange(T) < 50, 1.0, 0.0)
    errors[0, 2] = torch.where(torch.arange(T) < 50, 0.0, 1000.0)
    profile = Profile.learn(make_record(errors, [0]))
    assert profile.mean[20].item() == pytest.approx(profile.mean[80].item(), rel=1e-3)


def test_a_rival_equal_to_the_truth_says_nothing():
    profile = Profile.learn(make_record(torch.ones(2, 2, 8), [0, 1]))
    assert profile.mean.tolist() == profile.variance.tolist() == [0.0] * T


def test_an_empty_record_is_refused():
    with pytest.raises(ValueError, match="the record holds no images"):
        Profile.learn(make_record(torch.ones(0, 2, 8), []))
