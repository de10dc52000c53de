"""The variational bound: a plain loop in float64, closed forms for Gaussians, and who has one."""

import math

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend
from diffusion_classifier.noise import NoiseSchedule, VariationalBound
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import FixedDraws
from tests.support import other_pipelines
from tests.support.family_cases import CASES

LEVELS = torch.linspace(0.02, 0.5, 50, dtype=torch.float64)  # betas
SCHEDULE = NoiseSchedule.from_alphas_cumprod((1 - LEVELS).cumprod(0))
TIMESTEPS = [0, 1, 20, 49]


def gaussian_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def plain_term(x, z, eps_hat, v, t, alphas_cumprod):
    """One term of the bound for one latent, value by value, from the definitions."""
    signal = [1.0, *alphas_cumprod]  # before any noise, after t = 0, 1, ...
    beta = 1 - signal[t + 1] / signal[t]
    variances = [
        (1 - signal[s + 1] / signal[s]) * (1 - signal[s]) / (1 - signal[s + 1]) for s in (t, 1)
    ]
    low = math.log(variances[0] if t > 0 else variances[1])
    first = math.sqrt(signal[t]) * beta / (1 - signal[t + 1])
    second = math.sqrt(1 - beta) * (1 - signal[t]) / (1 - signal[t + 1])
    total = 0.0
    for x_i, z_i, eps_i, v_i in zip(
        *(tensor.flatten().tolist() for tensor in (x, z, eps_hat, v)), strict=True
    ):
        guess = (z_i - math.sqrt(1 - signal[t + 1]) * eps_i) / math.sqrt(signal[t + 1])
        log_variance = (v_i + 1) / 2 * math.log(beta) + (1 - v_i) / 2 * low
        mean, true_mean = first * guess + second * z_i, first * x_i + second * z_i
        if t > 0:
            total += 0.5 * (log_variance - low + math.exp(low - log_variance) - 1)
            total += 0.5 * (true_mean - mean) ** 2 / math.exp(log_variance)
            continue
        deviation = math.exp(log_variance / 2)
        below = gaussian_cdf((x_i - 1 / 255 - mean) / deviation) if x_i >= -0.999 else 0.0
        above = gaussian_cdf((x_i + 1 / 255 - mean) / deviation) if x_i <= 0.999 else 1.0
        total -= math.log(max(above - below, 1e-12))
    return total


def plain_errors(backend, x, noise, condition):
    """T L_t for each draw of TIMESTEPS, one evaluation at a time, in float64 from its output on."""
    alphas_cumprod = (backend.schedule.alpha**2).tolist()
    errors = []
    for t, eps in zip(TIMESTEPS, noise, strict=True):
        alpha, sigma = (level.item() for level in backend.schedule.at(torch.tensor(t)))
        z = alpha * x + sigma * eps
        output, v = backend.forward_with_variance(z[None], torch.tensor([t]), condition)
        term = plain_term(
            x, alpha * x.double() + sigma * eps.double(), output, v, t, alphas_cumprod
        )
        errors.append(backend.schedule.n_timesteps * term)
    return errors


class Bent(torch.nn.Module):
    """A network whose noise and variance depend on everything, in twice the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = torch.nn.Parameter(torch.tensor([0.3, -0.6]))

    def forward(self, z: Tensor, t: Tensor, class_index: Tensor) -> Tensor:
        shift = self.classes[class_index].view(-1, 1, 1, 1)
        return torch.cat([z - shift, torch.tanh(z + shift + t.view(-1, 1, 1, 1) / 50)], 1)


@pytest.fixture(scope="module", params=["function", "dit", "v_prediction"])
def backend(request):
    if request.param == "dit":
        return DiffusersBackend(other_pipelines.tiny_dit())
    kind = "epsilon" if request.param == "function" else "v_prediction"
    return FunctionBackend(
        Bent(),
        schedule=SCHEDULE,
        prediction_type=kind,
        classes=["0", "3"],
        learned_variance=True,
    )


@torch.inference_mode()
def test_errors_are_those_of_a_plain_loop_in_float64(backend):
    images = np.random.default_rng(0).random((2, 16, 16, 3), dtype=np.float32)
    images[0] = images[0] > 0.5  # values of the first and last level
    clf = DiffusionClassifier(
        backend,
        loss="vlb",
        sampler=FixedDraws(TIMESTEPS),
        pruner=NoPruning(len(TIMESTEPS)),
        random_state=0,
    ).fit(None, ["0", "3"])
    table = clf.errors(images)
    assert table.errors.dtype == np.float32 and table.loss == "vlb"
    latents = clf.encode(images).values
    (draws,) = FixedDraws(TIMESTEPS).rounds(backend.schedule, clf.seed_)
    noise = draws.noise(latents.shape[1:])
    for p, label in enumerate(("0", "3")):
        condition = backend.encode_classes([label], [label])
        for i, x in enumerate(latents):
            expected = plain_errors(in_noise(backend), x, noise, condition)
            np.testing.assert_allclose(table.errors[i, p], expected, rtol=2e-4)


def in_noise(backend):
    """The same network, asked for its noise if it predicts the velocity."""
    if backend.prediction_type == "epsilon":
        return backend

    class InNoise:
        schedule = backend.schedule

        @staticmethod
        def forward_with_variance(z, t, condition):
            v, variance = backend.forward_with_variance(z, t, condition)
            alpha, sigma = backend.schedule.at(t)
            return alpha * v.double() + sigma * z.double(), variance

    return InNoise


def test_the_expected_bound_of_a_gaussian_is_its_closed_form():
    r"""Data N(m, s^2) and the best predictor of its noise.

    The reverse step of p has the mean of q(z_{t-1} | z_t, x) at x_hat = E[x | z_t], so that, with v
    such that p's variance is that of q(z_{t-1} | z_t), averaged over z_t given x:
    L_t = 1/2 (u + e^-u - 1 + gain E[(eps_hat - eps)^2 | x] e^-u).
    """
    m, s, x = 0.7, 0.5, 1.3
    t = torch.arange(1, 50).repeat_interleave(40_000)
    alpha, sigma = SCHEDULE.at(t)
    noise = torch.randn(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.cat([noise, -noise])[::2].repeat(49)
    z = alpha * x + sigma * noise
    eps_hat = sigma * (z - alpha * m) / (alpha**2 * s**2 + sigma**2)
    signal = torch.cat([torch.ones(1, dtype=torch.float64), SCHEDULE.alpha**2])
    beta = 1 - signal[1:] / signal[:-1]
    true = beta * (1 - signal[:-1]) / (1 - signal[1:])
    # variance of z_{t-1} given z_t: that of q, and what z_t leaves open of x
    coefficient = signal[:-1].sqrt() * beta / (1 - signal[1:])
    left = s**2 * SCHEDULE.sigma**2 / (signal[1:] * s**2 + SCHEDULE.sigma**2)
    step = true + coefficient**2 * left
    v = 2 * (step.log() - true.log()) / (beta.log() - true.log()) - 1
    bound = VariationalBound(SCHEDULE)
    errors = bound.errors(
        (eps_hat - noise)[:, None], v[t][:, None], torch.full_like(z, x)[:, None], t
    )
    terms = errors.view(49, 40_000).mean(1) / 50
    a, b = SCHEDULE.alpha[1:], SCHEDULE.sigma[1:]
    k = b / (a**2 * s**2 + b**2)
    # E[(k (a (x - m) + b eps) - eps)^2]
    residual = (k * a * (x - m)) ** 2 + (k * b - 1) ** 2
    ratio = (step / true)[1:]
    means = (coefficient[1:] * b / a) ** 2 * residual
    expected = 0.5 * (ratio.log() + 1 / ratio - 1 + means / step[1:])
    torch.testing.assert_close(terms, expected, rtol=0.01, atol=1e-4)


def test_the_true_posterior_costs_nothing_and_beta_costs_its_divergence():
    bound = VariationalBound(SCHEDULE)
    zero, t = torch.zeros(49, 3, dtype=torch.float64), torch.arange(1, 50)
    assert torch.equal(bound.errors(zero, zero - 1, zero, t), torch.zeros(49, dtype=torch.float64))
    signal = SCHEDULE.alpha**2
    ratio = (1 - signal[1:]) / (1 - signal[:-1])  # of beta to the posterior's variance
    expected = 50 * 3 * 0.5 * (ratio.log() + 1 / ratio - 1)
    torch.testing.assert_close(bound.errors(zero, zero + 1, zero, t), expected)


def test_levels_of_the_decoder_sum_to_one():
    bound = VariationalBound(SCHEDULE)
    x = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None]
    mean = 0.97
    scale = SCHEDULE.sigma[0] / SCHEDULE.alpha[0]
    surprise = (
        bound.errors((x - mean) / scale, torch.zeros_like(x), x, torch.zeros(256).long()) / 50
    )
    assert torch.exp(-surprise).sum().item() == pytest.approx(1, abs=1e-9)
    assert int(surprise.argmin()) in (251, 255)  # the mean's own, or all that lies beyond the last


def test_probabilities_are_those_of_the_bound():
    """Mean error, priors and temperature 1: the posterior is the softmax of minus the bound."""
    backend = FunctionBackend(Bent(), schedule=SCHEDULE, learned_variance=True)
    clf = DiffusionClassifier(backend, loss="vlb", pruner=NoPruning(8), random_state=0)
    images = np.random.default_rng(0).random((2, 2, 2, 3))
    table = clf.fit(None, [0, 1]).errors(images)
    losses = table.errors.mean(2)
    expected = np.exp(-losses) / np.exp(-losses).sum(1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(table), expected, rtol=1e-4)


HAVE = {"dit", "pixart_alpha", "pixart_sigma", "hunyuan", "deepfloyd"}


@pytest.mark.parametrize("name", CASES)
def test_families_say_whether_they_learn_a_variance(name):
    backend = DiffusersBackend(CASES[name].build())
    assert backend.learned_variance == (name in HAVE)
    clf = DiffusionClassifier(backend, loss="vlb", pruner=NoPruning(2), random_state=0)
    labels = list(CASES[name].labels[:2])
    if name not in HAVE:
        with pytest.raises(
            ValueError, match=r"loss=\"vlb\" needs a network that also predicts a varia"
        ):
            clf.fit(None, labels)
        with pytest.raises(NotImplementedError, match="predicts no variance"):
            backend.forward_with_variance(*[torch.zeros(1)] * 2, backend)
        return
    z, t = torch.randn(2, *CASES[name].latent), torch.tensor([10, 700])
    condition = backend.encode_classes(labels, labels)
    output, variance = backend.forward_with_variance(z, t, condition)
    assert torch.equal(output, backend.forward(z, t, condition))
    assert variance.shape == z.shape and not torch.equal(output, variance)
    images = np.zeros((1, *CASES[name].pixels, 3))
    errors = clf.set_params(image_size=CASES[name].pixels).fit(None, labels).errors(images).errors
    assert errors.shape == (1, 2, 2) and (errors > 0).all()


@pytest.mark.parametrize(("kind", "has"), [("learned_range", True), ("learned", False)])
def test_a_variance_that_is_not_in_its_range_is_not_taken_for_one(kind, has):
    """``learned``: the output is the log variance itself, not v in [-1, 1]."""
    pipeline = other_pipelines.tiny_dit()
    pipeline.scheduler = diffusers.DDPMScheduler(variance_type=kind)
    backend = DiffusersBackend(pipeline)
    assert backend.learned_variance is has
    z, t = torch.randn(1, *CASES["dit"].latent), torch.tensor([10])
    assert backend.forward(z, t, backend.encode_classes(["0"], ["0"])).shape == z.shape


@pytest.mark.parametrize("weighting", ["likelihood", "exponential", "native"])
def test_weights_that_mean_something_of_the_noise_error_are_refused(weighting):
    backend = FunctionBackend(Bent(), schedule=SCHEDULE, learned_variance=True)
    clf = DiffusionClassifier(backend, loss="vlb", weighting=weighting)
    with pytest.raises(ValueError, match="weighting"):
        clf.fit(None, ["a", "b"])


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseSchedule.flow(10),
        NoiseSchedule.from_alphas_cumprod([0.9, 0.5, 0.0]),
    ],
    ids=["flow", "no signal"],
)
def test_schedules_without_a_reverse_step_are_refused(schedule):
    backend = FunctionBackend(Bent(), schedule=schedule, learned_variance=True)
    with pytest.raises(ValueError, match=r"variance-preserving schedule.*use loss='l2'"):
        DiffusionClassifier(backend, loss="vlb").fit(None, ["a", "b"])


def test_a_function_with_learned_variance_must_return_both_halves():
    backend = FunctionBackend(lambda z, t, k: z, schedule=SCHEDULE, learned_variance=True)
    condition = backend.encode_classes([0], ["0"])
    with pytest.raises(ValueError, match=r"\(1, 6, 4, 4\).*twice the channels of z"):
        backend.forward(torch.zeros(1, 3, 4, 4), torch.tensor([0]), condition)
    backend = FunctionBackend(lambda z, t, k: z, schedule=SCHEDULE)
    with pytest.raises(NotImplementedError, match="FunctionBackend predicts no variance"):
        backend.forward_with_variance(torch.zeros(1, 4, 4, 4), torch.tensor([0]), condition)
