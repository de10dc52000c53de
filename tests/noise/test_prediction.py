import pytest
import torch

from diffusion_classifier.noise import LOSSES, PREDICTION_TYPES, noise_errors

# x, eps, alpha, sigma and a guess of the noise, all rows different
X, EPS, GUESS = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
ALPHA, SIGMA = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.3, 0.7, 0.8])


def exact_output(kind, eps_hat, z, a, s):
    """The output that means the noise ``eps_hat`` in ``z``, from the definitions."""
    x_hat = (z - s * eps_hat) / a
    return {
        "epsilon": eps_hat,
        "v_prediction": a * eps_hat - s * x_hat,
        "sample": x_hat,
        "flow": eps_hat - x_hat,
    }[kind]


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("levels", ["general", "variance_preserving", "rectified_flow"])
def test_errors_of_all_prediction_types_are_those_of_the_noise(kind, levels):
    x, eps, guess = (v[:3] for v in (X, EPS, GUESS))
    a, s = ALPHA, SIGMA
    if levels == "variance_preserving":
        s = (1 - a**2).sqrt()
    if levels == "rectified_flow":
        s = 1 - a
    A, S = a.view(3, 1, 1), s.view(3, 1, 1)
    z = A * x + S * eps
    output = exact_output(kind, guess, z, A, S)
    entry = PREDICTION_TYPES[kind]
    errors = noise_errors(output, entry.target(x, eps, A, S), entry.scale(a, s), "l2")
    expected = ((guess - eps) ** 2).sum((1, 2))
    torch.testing.assert_close(errors, expected, rtol=2e-5, atol=0)


def test_scales_match_the_designs_table():
    a, s = ALPHA.double(), SIGMA.double()
    scales = {kind: entry.scale(a, s) ** 2 for kind, entry in PREDICTION_TYPES.items()}
    torch.testing.assert_close(scales["v_prediction"], (a / (a**2 + s**2)) ** 2)
    torch.testing.assert_close(scales["sample"], (a / s) ** 2)
    torch.testing.assert_close(scales["flow"], (a / (a + s)) ** 2)


def test_losses_sum_over_dimensions():
    output = torch.tensor([[[3.0, -0.5], [0.0, 2.0]]])
    target = torch.zeros(1, 2, 2)
    errors = {loss: noise_errors(output, target, torch.ones(1), loss).item() for loss in LOSSES}
    assert errors == {"l2": 13.25, "l1": 5.5, "huber": 2.5 + 0.125 + 1.5}


def test_errors_of_half_precision_outputs_are_float32():
    output = torch.full((1, 16384), 1.0, dtype=torch.bfloat16)
    errors = noise_errors(output, torch.full((1, 16384), 0.99), torch.ones(1), "l2")
    assert errors.dtype == torch.float32
    assert errors.item() == pytest.approx(16384 * 1e-4, rel=1e-3)
