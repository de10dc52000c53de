"""Samples of weights: what counts as a change, and that samples are views and stay the same."""

import torch
from torch import nn

from diffusion_classifier.backends.state.weights import (
    N_ELEMENTS,
    WeightSample,
    first_seen,
    own_weights,
)


def network():
    return nn.Sequential(nn.Conv2d(64, 64, 3), nn.Linear(100, 50), nn.LayerNorm(7))


def sample(module):
    return WeightSample.of(own_weights(module))


def test_elements_are_at_equal_distances_along_the_diagonal():
    square = torch.arange(31.0 * 31).view(31, 31)
    expected = square.diagonal()[::2]
    assert torch.equal(WeightSample.of([("w", square)]).elements, expected)
    small = torch.arange(12.0).view(3, 4).T
    assert torch.equal(WeightSample.of([("w", small)]).elements, small.flatten())


def test_elements_do_not_depend_on_the_memory_format():
    before = network()
    expected = sample(before)
    found = sample(before.to(memory_format=torch.channels_last))
    assert torch.equal(found.elements, expected.elements) and found.digest() == expected.digest()


def test_every_tensor_is_sampled_by_name():
    found = sample(network())
    assert list(found.places) == [f"{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert len(found.elements) == 4 * N_ELEMENTS + 2 * 7
    assert found.places["2.bias"] == (71, 78, torch.Size([7]))


def test_a_change_of_any_tensor_is_found_also_one_that_pytorch_does_not_count():
    for name, parameter in network().named_parameters():
        module = network()
        before, target = sample(module), module.get_parameter(name)
        version = target._version
        target.data += 0.1 * parameter.data.abs().mean().clamp(min=0.1)
        assert target._version == version
        assert sample(module).differs(before), name
        assert sample(module).digest() != before.digest()


def test_a_low_rank_update_of_a_thousandth_is_found_in_half_precision():
    module = network()
    before = sample(module.to(torch.bfloat16))
    weight = module[1].weight
    update = torch.randn(50, 2) @ torch.randn(2, 100)
    weight.data = weight.float() + 1e-3 * update * weight.float().std() / update.std()
    assert sample(module).differs(before)


def test_rounding_to_half_precision_is_no_change():
    module = network()
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn_like(parameter) * 10 ** torch.randn_like(parameter))
    before = sample(module)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert not sample(module.to(dtype)).differs(before)
    module[2].bias.data[3] = torch.nan
    assert sample(module).differs(before)
    assert not sample(module).differs(sample(module))  # NaN as before


def test_other_names_and_shapes_are_not_compared():
    one, other = network(), network()
    other[2] = nn.LayerNorm(8)
    del other[1]
    other[0].load_state_dict(one[0].state_dict())
    assert not sample(other).differs(sample(one))
    assert not sample(nn.Identity()).differs(sample(one))


def test_tensors_that_hold_no_plain_numbers_are_left_out():
    class Quantised(torch.Tensor):
        pass

    tensors = {
        "meta": torch.empty(4, device="meta"),
        "own class": torch.zeros(4).as_subclass(Quantised),
        "sparse": torch.eye(4).to_sparse(),
        "complex": torch.zeros(4, dtype=torch.complex64),
        "plain": torch.ones(4),
        "eight bits": torch.ones(4).to(torch.float8_e4m3fn),
    }
    assert list(WeightSample.of(tensors.items()).places) == ["plain", "eight bits"]


def test_a_digest_is_the_same_in_every_process_and_whatever_the_order():
    tensors = [("a", torch.arange(40.0)), ("b", torch.ones(2, dtype=torch.float16))]
    digests = {WeightSample.of(order).digest() for order in (tensors, tensors[::-1])}
    assert digests == {"baeac76994b4"}


def test_the_first_sample_is_kept_while_the_network_lives():
    module = network()
    before = first_seen(module)
    module[1].weight.data.zero_()
    assert first_seen(module) is before and sample(module).differs(before)
    assert first_seen(torch.compile(module, backend="eager")) is before
