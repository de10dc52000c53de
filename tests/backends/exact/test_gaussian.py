"""Exact noise predictors: against independent formulas, and as scikit-learn would have them."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import Conditioning, FunctionBackend
from diffusion_classifier.backends.exact import GaussianBackend, GaussianMixtureBackend, base
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from tests.support.gaussians import (
    TYPES,
    X_IRIS,
    Y_IRIS,
    gaussian,
    gaussian_mixture,
    noised,
)

# ------------------------------------------------------------------- the noise prediction


@pytest.mark.parametrize("covariance_type", TYPES)
def test_gaussian_noise_is_the_linear_solve_of_its_definition(covariance_type):
    backend, means, covariances = gaussian(covariance_type)
    _, _, t, k, alpha, sigma, z = noised(backend, 50)
    output = backend.forward(z, t, Conditioning(class_index=k))
    turn = torch.eye(4).double() if backend.latent_rotation_ is None else backend.latent_rotation_
    for r in range(50):
        mean = (means[k[r]] - backend.center_) / backend.scale_
        covariance = covariances[k[r]] / np.outer(backend.scale_, backend.scale_)
        a, s = alpha[r].item(), sigma[r].item()
        matrix = a**2 * covariance + s**2 * np.eye(4)
        expected = s * np.linalg.solve(matrix, (turn @ z[r]).numpy() - a * mean)
        np.testing.assert_allclose((turn @ output[r]).numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("covariances", [None, 0.7, [0.5, 2.0]])
def test_mixture_noise_is_minus_sigma_times_the_score(covariances):
    backend = gaussian_mixture(covariances=covariances)
    _, _, t, k, alpha, sigma, z = noised(backend, 60)
    z.requires_grad_()
    variances = backend.variances_.expand_as(backend.means_)[k]
    normals = torch.distributions.Normal(
        alpha[:, None] * backend.means_[k],
        (alpha[:, None] ** 2 * variances + sigma[:, None] ** 2).sqrt(),
    )
    density = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=backend.log_weights_[k]),
        torch.distributions.Independent(normals, 1),
    )
    (score,) = torch.autograd.grad(density.log_prob(z).sum(), z)
    output = backend.forward(z.detach(), t, Conditioning(class_index=k))
    torch.testing.assert_close(output, -sigma * score, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("covariance_type", ["shared", "diag"])
def test_a_mixture_of_one_component_is_a_gaussian(covariance_type):
    one, means, covariances = gaussian(covariance_type)
    given = covariances[0] if covariance_type == "shared" else one.covariances[:, None]
    many = GaussianMixtureBackend(means[:, None], given, covariance_type=covariance_type)
    many.fit(None, np.arange(3))
    _, _, t, k, _, _, z = noised(one, 40)
    condition = Conditioning(class_index=k)
    torch.testing.assert_close(
        many.forward(z, t, condition), one.forward(z, t, condition), rtol=1e-12, atol=0
    )


def test_a_component_repeated_changes_nothing():
    rng = np.random.default_rng(2)
    means, variances = rng.standard_normal((2, 1, 3)), rng.uniform(0.5, 2, (2, 1, 3))
    one = GaussianMixtureBackend(means, variances).fit(None, [0, 1])
    two = GaussianMixtureBackend(means.repeat(2, 1), variances.repeat(2, 1), [[0.2, 0.8]] * 2)
    two.fit(None, [0, 1])
    _, _, t, k, _, _, z = noised(one, 40)
    condition = Conditioning(class_index=k)
    torch.testing.assert_close(one.forward(z, t, condition), two.forward(z, t, condition))
    np.testing.assert_allclose(one.log_likelihood(means[0]), two.log_likelihood(means[0]))


def test_a_component_of_weight_zero_never_takes_part():
    means = np.array([[[0.0], [9.0]], [[1.0], [1.0]]])
    with_it = GaussianMixtureBackend(means, 1.0, [[1.0, 0.0], [0.5, 0.5]]).fit(None, [0, 1])
    assert np.isclose(with_it.log_likelihood([[9.0]])[0, 0], multivariate_normal(0, 1).logpdf(9))
    output = with_it.forward(
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([400]),
        Conditioning(class_index=torch.tensor([0])),
    )
    assert bool(output.isfinite().all())


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_do_not_depend_on_their_batch(covariance_type, monkeypatch):
    backend, _, _ = gaussian(covariance_type)
    _, _, t, k, _, _, z = noised(backend, 30)
    whole = backend.forward(z, t, Conditioning(class_index=k))
    monkeypatch.setattr(base, "_CHUNK_ELEMENTS", 28)  # seven rows
    monkeypatch.setattr(base, "_GATHERED_ELEMENTS", 0)  # rows grouped by class
    parts = backend.forward(z, t, Conditioning(class_index=k))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-13)


def test_output_has_the_dtype_of_the_latents():
    backend, _, _ = gaussian("full")
    _, _, t, k, _, _, z = noised(backend, 30)
    condition = Conditioning(class_index=k)
    exact, single = backend.forward(z, t, condition), backend.forward(z.float(), t, condition)
    assert backend.dtype == exact.dtype == torch.float64 and single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("schedule", [None, NoiseSchedule.flow(1000)], ids=["wide", "flow"])
@pytest.mark.parametrize("model", ["full", "shared", "mixture"])
def test_all_prediction_types_give_the_same_errors(model, schedule):
    errors = {}
    for name, kind in PREDICTION_TYPES.items():
        params = {"schedule": schedule, "prediction_type": name}
        backend = gaussian_mixture(**params) if model == "mixture" else gaussian(model, **params)[0]
        x, eps, t, k, alpha, sigma, z = noised(backend, 200)
        output = backend.forward(z, t, Conditioning(class_index=k))
        residual = kind.scale(alpha, sigma) * (output - kind.target(x, eps, alpha, sigma))
        errors[name] = (residual**2).sum(1)
    for name in ("v_prediction", "sample", "flow"):
        torch.testing.assert_close(errors[name], errors["epsilon"], rtol=1e-5, atol=1e-7)


def test_a_mixture_said_in_four_ways_has_one_posterior():
    """One schedule, neither variance-preserving nor a flow, and an independent formula."""
    schedule = NoiseSchedule(torch.linspace(0.99, 0.05, 100), torch.linspace(0.02, 0.9, 100))
    truth = gaussian_mixture(schedule=schedule)
    X = truth.sample(20, random_state=1)[0]

    class Wrapped(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind
            self.levels = torch.nn.Parameter(torch.stack([schedule.alpha, schedule.sigma]))

        def forward(self, z, t, class_index):
            eps = truth.forward(z, t, Conditioning(class_index=class_index))
            alpha, sigma = (level[:, None] for level in self.levels[:, t])
            x = (z - sigma * eps) / alpha
            return {
                "epsilon": eps,
                "v_prediction": alpha * eps - sigma * x,
                "sample": x,
                "flow": eps - x,
            }[self.kind]

    posteriors = {}
    for kind in PREDICTION_TYPES:
        backend = FunctionBackend(
            Wrapped(kind),
            schedule=schedule,
            prediction_type=kind,
            input_kind="array",
            encode=truth.encode_images,
        )
        clf = DiffusionClassifier(
            backend, pruner=NoPruning(40), weighting="likelihood", random_state=0
        )
        posteriors[kind] = clf.fit(None, [0, 1, 2]).predict_proba(X)
    assert posteriors["epsilon"].std() > 0.1
    for kind in ("v_prediction", "sample", "flow"):
        np.testing.assert_allclose(posteriors[kind], posteriors["epsilon"], rtol=0, atol=1e-6)
    own = DiffusionClassifier(
        truth, pruner=NoPruning(40), weighting="likelihood", random_state=0
    ).fit(None, [0, 1, 2])
    np.testing.assert_allclose(own.predict_proba(X), posteriors["epsilon"], rtol=0, atol=1e-6)


def test_without_signal_every_prediction_type_stays_finite():
    schedule = NoiseSchedule([0.8, 0.0], [0.6, 1.0])
    for name in PREDICTION_TYPES:
        backend, _, _ = gaussian("diag", schedule=schedule, prediction_type=name)
        z = torch.ones(1, 4, dtype=torch.float64)
        output = backend.forward(z, torch.tensor([1]), Conditioning(class_index=torch.tensor([0])))
        assert bool(output.isfinite().all())


# ------------------------------------------------------------------- scikit-learn's ways


def test_parameters_are_stored_as_given_and_clones_are_unfitted():
    schedule = NoiseSchedule.flow(10)
    backend = GaussianBackend(schedule=schedule, reg_param=0.1).fit(X_IRIS, Y_IRIS)
    assert backend.get_params()["schedule"] is schedule is backend.schedule
    copy = clone(backend)
    assert copy.reg_param == 0.1 and torch.equal(copy.schedule.sigma, schedule.sigma)
    with pytest.raises(NotFittedError):
        copy.log_likelihood(X_IRIS)


def test_the_own_schedule_follows_n_timesteps_after_a_clone():
    backend = clone(GaussianBackend()).set_params(n_timesteps=7)
    assert backend.get_params()["schedule"] is None and backend.schedule.n_timesteps == 7


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_pickled_backends_predict_the_same(kind):
    backend = gaussian_mixture() if kind == "mixture" else gaussian("full")[0]
    _, _, t, k, _, _, z = noised(backend, 10)
    condition = Conditioning(class_index=k)
    back = pickle.loads(pickle.dumps(backend))
    assert torch.equal(back.forward(z, t, condition), backend.forward(z, t, condition))


def test_prompts_are_class_names_and_rows_are_arrays():
    backend = GaussianBackend()
    assert (backend.input_kind, backend.text_conditional) == ("array", False)
    assert backend.default_template.format("cat") == "cat"


# ------------------------------------------------------------------- errors

MEANS = [[0.0, 0.0], [1.0, 1.0]]
EYES = [np.eye(2)] * 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"X is None.*call fit\(X, y\)"),
        ({"means": MEANS}, r"means=\[\[0.*and covariances=None: give both"),
        (
            {"means": [0.0, 1.0], "covariances": EYES},
            r"means=.* has shape \(2,\); expected \(K, F\)",
        ),
        ({"means": MEANS, "covariances": np.eye(2)}, r"expected \(2, 2, 2\)"),
        ({"means": MEANS, "covariances": [[[1, 2], [2, 1]]] * 2}, "classes 'a', 'b' have negative"),
        ({"means": MEANS, "covariances": [[[1, 1], [0, 1]]] * 2}, "symmetric"),
        ({"means": MEANS, "covariances": [-np.eye(2)] * 2}, "negative variance, -1"),
        (
            {"means": [[0, np.nan], [1, 1]], "covariances": EYES},
            r"means\[0, 1\]=nan must be finite",
        ),
        ({"means": MEANS * 2, "covariances": EYES * 2}, "y names 2 classes, but .* for 4"),
        ({"covariance_type": "tied"}, "covariance_type='tied' is not known"),
        ({"prediction_type": "noise"}, "prediction_type='noise' is not known"),
        ({"reg_param": 1.5}, "reg_param=1.5 must be a number >= 0 and <= 1"),
    ],
)
def test_wrong_gaussian_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        GaussianBackend(**params).fit(None, ["a", "b"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"means": MEANS}, r"means=.* has shape \(2, 2\); expected \(K, M, F\)"),
        ({"means": None}, r"means=None: .* give means \(K, M, F\), or learn .* GaussianBackend"),
        (
            {"means": np.empty((2, 0, 2))},
            r"shape \(2, 0, 2\); .*\(K, M, F\)\. No axis may be empty",
        ),
        (
            {"means": np.empty((2, 1, 0))},
            r"shape \(2, 1, 0\); .*\(K, M, F\)\. No axis may be empty",
        ),
        ({"covariances": [1.0, 1.0, 1.0]}, r"\(3,\) do not broadcast .* \(2, 1, 2\)"),
        ({"weights": [[1.0]]}, r"weights=.* has shape \(1, 1\); expected \(2, 1\)"),
        ({"weights": [[0.9], [1.0]]}, "must sum to 1"),
        ({"covariance_type": "full"}, "covariance_type='full' is not known"),
    ],
)
def test_wrong_mixture_parameters_are_named(params, message):
    params = {"means": [[[0.0, 0.0]], [[1.0, 1.0]]], "covariances": 1.0} | params
    table = pd.DataFrame({"height": [0.0, 1.0], "width": [0.0, 1.0]})
    for X in (None, table):
        clf = DiffusionClassifier(GaussianMixtureBackend(**params))
        with pytest.raises(InputValueError, match=message):
            clf.fit(X, ["a", "b"])


def test_wrong_schedules_rows_and_labels_are_named():
    with pytest.raises(TypeError, match="must be a NoiseSchedule or None"):
        GaussianBackend(schedule="cosine")
    with pytest.raises(ValueError, match="n_timesteps=0 must be an integer from 1 to 100000"):
        _ = GaussianBackend(n_timesteps=0).schedule
    backend, _, _ = gaussian("full")
    with pytest.raises(ValueError, match=r"rows have shape \(5, 3\).*expected \(n_rows, 4\)"):
        backend.encode_images(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"labels\[1\]=7 is not one of the 3 classes.*0, 1, 2"):
        backend.encode_classes([0, 7], ["0", "7"])
