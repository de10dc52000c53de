"""Preconditioned networks: an exact Gaussian, said in the three ways that such a network may be."""

from itertools import islice

import diffusers
import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend
from diffusion_classifier.noise import NoiseSchedule, karras_sigmas
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.testing.own_call import watched
from tests.support import other_pipelines, pipelines

SIGMAS = karras_sigmas()
DEVIATION = 0.5  # of the data, in the preconditioning
MEANS, SPREAD = (-0.4, 0.6), 0.3  # of the two classes


class Denoiser(torch.nn.Module):
    """The mean of x given ``y = x + s eps``, and what is under its preconditioning."""

    def __init__(self) -> None:
        super().__init__()
        self.means = torch.nn.Parameter(torch.tensor(MEANS, dtype=torch.float64))

    def forward(self, y, s, class_index):
        means, s = self.means[class_index].view(-1, 1), s.view(-1, 1)
        return (s**2 * means + SPREAD**2 * y) / (s**2 + SPREAD**2)

    def network(self, z, time, class_index):
        """F(c_in y, log(s) / 4) = (D(y, s) - c_skip y) / c_out."""
        s = torch.exp(4 * time)
        c_in = 1 / (s**2 + DEVIATION**2).sqrt().view(-1, 1)
        y = z / c_in
        denoised = self(y, s, class_index)
        return (denoised - (DEVIATION * c_in) ** 2 * y) / (s.view(-1, 1) * DEVIATION * c_in)


class Exploding(Denoiser):
    """The denoised image, at alpha = 1 and sigma = s."""

    def forward(self, z, t, class_index):
        return super().forward(z, SIGMAS[t], class_index)


class Preserving(Denoiser):
    """The velocity of ``x / DEVIATION``, from the network under the preconditioning."""

    def forward(self, z, t, class_index):
        inner = Denoiser()
        return -inner.network(z, SIGMAS[t].log() / 4, class_index)


OPTIONS = {"input_kind": "array", "classes": ["a", "b"]}
BACKENDS = {
    "exploding": FunctionBackend(
        Exploding(),
        schedule=NoiseSchedule(torch.ones(1000), SIGMAS),
        prediction_type="sample",
        **OPTIONS,
    ),
    "preserving": FunctionBackend(
        Preserving(),
        schedule=NoiseSchedule.from_sigmas(SIGMAS, DEVIATION),
        prediction_type="v_prediction",
        encode=lambda rows: rows / DEVIATION,
        **OPTIONS,
    ),
}
X = np.array([[-0.5, 0.1], [0.2, 0.9], [0.1, 0.1]])


def table_of(backend, n_draws=1000):
    clf = DiffusionClassifier(
        backend,
        sampler=StratifiedSampler(20, antithetic=True),  # noise averages out
        pruner=NoPruning(n_draws),
        weighting="likelihood",
        random_state=0,
    ).fit(None, ["a", "b"])
    return clf, clf.errors(X)


@pytest.mark.parametrize("name", BACKENDS)
def test_errors_are_those_of_the_exact_noise(name):
    clf, table = table_of(BACKENDS[name], 200)
    rounds = islice(clf.sampler_.rounds(clf.backend_.schedule, clf.seed_), 10)
    noise = torch.cat([draws.noise((2,)) for draws in rounds]).double()
    s = SIGMAS[torch.as_tensor(table.timesteps)].view(-1, 1)
    for i, x in enumerate(torch.tensor(X)):
        for p, mean in enumerate(MEANS):
            y = x + s * noise
            eps_hat = s * (y - mean) / (s**2 + SPREAD**2)  # E[eps | y]
            expected = (eps_hat - noise).square().sum(1)
            np.testing.assert_allclose(table.errors[i, p], expected, rtol=1e-6)


def test_posteriors_agree_and_are_those_of_the_densities():
    both = [table.log_posterior().exp() for _, table in map(table_of, BACKENDS.values())]
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-6)
    log_density = -((torch.tensor(X)[:, None] - torch.tensor(MEANS)[:, None]) ** 2).sum(2)
    exact = torch.softmax(log_density / (2 * SPREAD**2), 1)
    torch.testing.assert_close(both[0], exact, rtol=0, atol=5e-3)


def test_a_class_conditional_unet_is_given_scaled_images_and_the_logarithm_of_their_noise():
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5, sigma_schedule="exponential")
    pipeline = other_pipelines.tiny_ddpm()
    pipeline.scheduler = scheduler
    backend = DiffusersBackend(pipeline)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(backend.encode_images(images), images / 0.5)
    z, t = torch.randn(2, 3, 16, 16), torch.tensor([0, 999])
    with watched(pipeline.unet) as calls:
        output = backend.forward(z, t, backend.encode_classes(["0", "3"], ["0", "3"]))
    assert torch.equal(calls[0].given["sample"], z)
    expected = torch.tensor([0.002, 80.0]).log() / 4
    torch.testing.assert_close(calls[0].given["timestep"], expected)
    assert torch.equal(output, -calls[0].output)
    # c_skip y + c_out F, with what the scheduler makes of it
    scheduler.set_timesteps(1000)
    s = scheduler.sigmas[0]
    y = z[1:] / scheduler._get_conditioning_c_in(s)
    denoised = scheduler.precondition_outputs(y, calls[0].output[1:], s)
    alpha, sigma = (level.float() for level in backend.schedule.at(t[1:]))
    torch.testing.assert_close((alpha * z[1:] - sigma * output[1:]) * 0.5, denoised)


def test_the_scheduler_may_be_exchanged_once_the_backend_is_made():
    pipeline = pipelines.tiny_sdxl()
    pipeline.scheduler = diffusers.EDMEulerScheduler(prediction_type="v_prediction")
    backend = DiffusersBackend(pipeline)
    images, z = torch.rand(1, 3, 16, 16), torch.randn(1, 4, 8, 8)
    condition = backend.encode_classes(["a cat"], ["a cat"])

    def outputs():
        forward = backend.forward(z, torch.tensor([500]), condition)
        return backend.encode_images(images), forward

    before = outputs()
    pipeline.scheduler = diffusers.EulerDiscreteScheduler()
    assert all(torch.equal(*pair) for pair in zip(before, outputs(), strict=True))


def test_the_grid_of_noise_is_the_schedulers():
    for kind in ("karras", "exponential"):
        pipeline = pipelines.tiny_sdxl()
        pipeline.scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_schedule=kind)
        schedule = DiffusersBackend(pipeline).schedule
        pipeline.scheduler.set_timesteps(1000)
        expected = pipeline.scheduler.sigmas[:-1].flip(0).double()
        torch.testing.assert_close(
            0.5 * schedule.sigma / schedule.alpha, expected, rtol=1e-5, atol=0
        )


def test_other_predictions_are_refused():
    pipeline = pipelines.tiny_sdxl()
    pipeline.scheduler = diffusers.EDMEulerScheduler(prediction_type="sample")
    with pytest.raises(ValueError, match=r"prediction_type='sample' of EDMEuler.*epsilon, v_pred"):
        DiffusersBackend(pipeline)
