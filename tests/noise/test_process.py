"""Processes: what a draw masks, and errors whose mean is the negative log-likelihood."""

import itertools

import pytest
import torch

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.noise import (
    PREDICTION_TYPES,
    PROCESSES,
    MaskedTokens,
    NoiseSchedule,
    OrderedTokens,
    noise_errors,
)
from diffusion_classifier.noise.draws import keyed_noise
from diffusion_classifier.noise.prediction import expand
from diffusion_classifier.noise.process import Levels
from diffusion_classifier.scoring import LikelihoodWeighting, NativeWeighting, UniformWeighting
from diffusion_classifier.scoring.natural import natural_temperature
from tests.support.tokens import N_CLASSES, N_TOKENS, STATES, Joint, by_order

TOKENS = MaskedTokens()
ONE = torch.ones(1)


def mask(x, noise, t):
    return TOKENS.corrupt(x.float(), noise, Levels(ONE, ONE, torch.as_tensor(t)), torch.float32)


def test_mean_error_over_all_orders_and_masks_is_the_negative_log_likelihood():
    joint = Joint()
    orders = torch.tensor(list(itertools.permutations(range(N_TOKENS)))).float()
    order, t = torch.cartesian_prod(torch.arange(len(orders)), torch.arange(N_TOKENS)).T
    for k in range(N_CLASSES):
        for number, x in enumerate(STATES):
            z, target = mask(x.expand(len(t), -1), orders[order], t)
            errors = TOKENS.errors(joint(z, t, torch.full_like(t, k)), target, ONE, "l2")
            expected = -joint.table[k, number].log()
            assert errors.std() > 0.01  # only the mean is
            assert errors.mean().item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)


def test_a_draw_masks_t_plus_1_tokens_and_leaves_the_others():
    noise = torch.stack([keyed_noise(0, key, (2, 3)) for key in range(600)])
    x, t = torch.arange(6).view(2, 3).expand(600, 2, 3), torch.arange(600) % 6
    z, target = mask(x, noise, t)
    assert z.dtype == torch.int64
    assert torch.equal((z == -1).flatten(1).sum(1), t + 1)
    assert torch.equal(z.where(z >= 0, target), x)
    assert torch.equal(z >= 0, target == -1)
    often = (z == -1)[t == 2].double().mean(0)  # 100 rows, each place with probability 1/2
    assert float((often - 0.5).abs().max()) < 0.2
    tied, _ = mask(x, torch.zeros(600, 2, 3), t)
    assert torch.equal((tied == -1).flatten(1).sum(1), t + 1)


def test_error_of_an_order_is_the_negative_log_likelihood_by_that_order():
    joint, process = Joint(), OrderedTokens()
    orders = torch.tensor(list(itertools.permutations(range(N_TOKENS))))
    t = torch.zeros(len(orders), dtype=torch.int64)
    for k in range(N_CLASSES):
        for number, x in enumerate(STATES):
            x = x.float().expand(len(t), -1)
            z, target = process.corrupt(x, 2.0 * orders, Levels(ONE, ONE, t), torch.float32)
            assert torch.equal(z[:, 1], orders)
            errors = process.errors(by_order(joint, z, torch.full_like(t, k)), target, ONE, "l2")
            expected = -joint.table[k, number].log().expand(len(t))
            torch.testing.assert_close(errors, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_errors_of_two_tokens_by_hand(dtype):
    logits = torch.tensor([[[1.0, 3.0, 0.5], [0.0, 2.0, -1.0]]], dtype=dtype)
    errors = [
        TOKENS.errors(logits, torch.tensor([target]), ONE, "l2") for target in ([2, -1], [2, 1])
    ]
    log_p = logits.double().log_softmax(-1)[0]
    assert errors[0].item() == pytest.approx(-2 * log_p[0, 2].item(), rel=1e-6)  # 1 of 2
    assert errors[1].item() == pytest.approx(-(log_p[0, 2] + log_p[1, 1]).item(), rel=1e-6)
    assert errors[0].dtype == torch.promote_types(dtype, torch.float32)


def test_a_token_outside_the_vocabulary_has_no_probability():
    errors = TOKENS.errors(torch.zeros(2, 2, 3), torch.tensor([[2, -1], [3, -1]]), ONE, "l2")
    assert errors.isinf().tolist() == [False, True]


@pytest.mark.parametrize("n_tokens", [1, 2, 16, 1000])
def test_losses_of_tokens_are_in_nats_under_uniform_likelihood_and_native_weights(n_tokens):
    schedule = NoiseSchedule.masking(n_tokens)
    assert schedule.n_timesteps == n_tokens
    for weighting in (UniformWeighting(), LikelihoodWeighting(), NativeWeighting()):
        weights = weighting.weights(schedule, "tokens")
        torch.testing.assert_close(weights, torch.ones(n_tokens).double(), rtol=1e-9, atol=0)
        assert natural_temperature(weighting, weights, schedule) == pytest.approx(1, rel=1e-9)


def test_tokens_that_are_none_are_refused_with_their_place():
    schedule = NoiseSchedule.masking(3)
    TOKENS.check(torch.tensor([[0.0, 1.0, 7.0]]), schedule)
    for value in (0.5, -1.0):
        x = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, value]])
        with pytest.raises(InputValueError, match=f"token 2 of image 11 is {value:g};"):
            TOKENS.check(x, schedule, 10)
    with pytest.raises(InputValueError, match="image 4 has 2 tokens, but the schedule has 3"):
        TOKENS.check(torch.zeros(1, 2), schedule, 4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_noise_is_corrupted_and_judged_as_before(kind):
    generator = torch.Generator().manual_seed(0)
    x, eps, output = torch.randn(3, 4, 2, 5, generator=generator)
    t = torch.tensor([0, 3, 7, 9])
    process, schedule = PROCESSES[kind], NoiseSchedule.flow(10)
    alpha, sigma = schedule.at(t)
    a, s = expand(alpha, x), expand(sigma, x)
    z, target = process.corrupt(x, eps, Levels(a, s, t), torch.bfloat16)
    assert torch.equal(z, (a * x + s * eps).bfloat16())
    assert torch.equal(target, PREDICTION_TYPES[kind].target(x, eps, a, s))
    scale = process.scale(alpha, sigma).float()
    for loss in ("l2", "l1", "huber"):
        errors = process.errors(output, target, scale, loss)
        assert torch.equal(errors, noise_errors(output, target, scale, loss))
        assert process.terms(output, target, scale, loss).shape == x.shape
