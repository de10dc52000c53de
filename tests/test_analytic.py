"""Exact noise predictors against independent formulas, scikit-learn and closed-form integrals."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from diffusion_classifier.backends import mixture
from diffusion_classifier.backends.analytic import GaussianBackend, GaussianMixtureBackend
from diffusion_classifier.backends.base import Conditioning
from diffusion_classifier.prediction import PREDICTION_TYPES
from diffusion_classifier.schedule import NoiseSchedule
from diffusion_classifier.weighting import LikelihoodWeighting

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_BLOBS, Y_BLOBS = make_blobs(300, 5, centers=4, cluster_std=4.0, random_state=0)
TYPES = ["full", "shared", "diag"]


def softmax(log_likelihood):
    return torch.as_tensor(log_likelihood).softmax(1).numpy()


def latents(backend, X):
    return backend.encode_images(torch.as_tensor(np.asarray(X)))


def random_covariances(rng, *shape):
    roots = rng.standard_normal((*shape, shape[-1]))
    return roots @ roots.swapaxes(-1, -2) / shape[-1] + 0.2 * np.eye(shape[-1])


def gaussian(covariance_type, n_classes=3, n_features=4, **params):
    """A backend of given random classes, its means [K, F] and covariances [K, F, F]."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((n_classes, n_features)) * 2 + 5
    if covariance_type == "full":
        given = dense = random_covariances(rng, n_classes, n_features)
    elif covariance_type == "shared":
        given = random_covariances(rng, n_features)
        dense = np.repeat(given[None], n_classes, 0)
    else:
        given = rng.uniform(0.3, 3, (n_classes, n_features))
        dense = np.stack([np.diag(row) for row in given])
    backend = GaussianBackend(means, given, covariance_type=covariance_type, **params)
    return backend.fit(None, np.arange(n_classes)), means, dense


def gaussian_mixture(n_classes=3, n_components=3, n_features=2, covariances=None, **params):
    rng = np.random.default_rng(1)
    means = rng.standard_normal((n_classes, n_components, n_features)) * 3
    weights = rng.dirichlet(np.ones(n_components), n_classes)
    if covariances is None:
        covariances = rng.uniform(0.3, 2, means.shape)
    backend = GaussianMixtureBackend(means, covariances, weights, **params)
    return backend.fit(None, np.arange(n_classes))


def noised(backend, n_rows, seed=0):
    """Random rows: latents of samples, noise, timesteps, classes and the noised latents."""
    generator = torch.Generator().manual_seed(seed)
    x = latents(backend, backend.sample(n_rows, random_state=seed)[0])
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    t = torch.randint(backend.schedule.n_timesteps, (n_rows,), generator=generator)
    k = torch.randint(len(backend.classes_), (n_rows,), generator=generator)
    alpha, sigma = (level[:, None] for level in backend.schedule.at(t))
    return x, eps, t, k, alpha, sigma, alpha * x + sigma * eps


def expected_errors(backend, x):
    """E||eps - eps_hat||^2 [N, K, T], exact for Gaussians: the residual is affine in the noise.

    With residual r0 + B eps it is ||r0||^2 + ||B||^2, read off ``forward`` at eps = 0 and at the
    unit vectors.
    """
    (n, n_features), n_classes = x.shape, len(backend.classes_)
    n_timesteps = backend.schedule.n_timesteps
    eps = torch.cat([torch.zeros(1, n_features), torch.eye(n_features)]).to(torch.float64)
    shape = (n, n_classes, n_timesteps, n_features + 1)
    i, k, t, e = (index.flatten() for index in torch.meshgrid(*map(torch.arange, shape)))
    alpha, sigma = (level[:, None] for level in backend.schedule.at(t))
    output = backend.forward(alpha * x[i] + sigma * eps[e], t, Conditioning(class_index=k))
    residual = (eps[e] - output).view(*shape, n_features)
    offset = residual[..., :1, :]
    return (offset**2).sum((-1, -2)) + ((residual[..., 1:, :] - offset) ** 2).sum((-1, -2))


def drawn_log_likelihoods(backend, x, n_draws, seed):
    """``-mean w err`` [N, K] over stratified timesteps and antithetic pairs of noise."""
    rng = np.random.default_rng(seed)
    schedule = backend.schedule
    n_times, n_classes = n_draws // 2, len(backend.classes_)
    rounds = (np.arange(4) + rng.random((n_times // 4, 1))) / 4
    t = torch.as_tensor((rounds.ravel() * schedule.n_timesteps).astype(int)).repeat(2)
    eps = torch.as_tensor(rng.standard_normal((n_times, x.shape[1])))
    eps = torch.cat([eps, -eps])
    alpha, sigma = (level[:, None] for level in schedule.at(t))
    weights = LikelihoodWeighting().weights(schedule, "epsilon")[t]
    losses = torch.empty(len(x), n_classes, dtype=torch.float64)
    for i, k in np.ndindex(len(x), n_classes):
        condition = Conditioning(class_index=torch.full((n_draws,), k))
        output = backend.forward(alpha * x[i] + sigma * eps, t, condition)
        losses[i, k] = (weights * ((eps - output) ** 2).sum(1)).mean()
    return -losses


# ------------------------------------------------------------------- the noise prediction


@pytest.mark.parametrize("covariance_type", TYPES)
def test_gaussian_noise_is_the_linear_solve_of_its_definition(covariance_type):
    backend, means, covariances = gaussian(covariance_type)
    _, _, t, k, alpha, sigma, z = noised(backend, 50)
    output = backend.forward(z, t, Conditioning(class_index=k))
    turn = torch.eye(4) if backend.latent_rotation_ is None else backend.latent_rotation_
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
    monkeypatch.setattr(mixture, "_CHUNK_ELEMENTS", 28)  # seven rows
    monkeypatch.setattr(mixture, "_GATHERED_ELEMENTS", 0)  # rows grouped by class
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


def test_without_signal_every_prediction_type_stays_finite():
    schedule = NoiseSchedule([0.8, 0.0], [0.6, 1.0])
    for name in PREDICTION_TYPES:
        backend, _, _ = gaussian("diag", schedule=schedule, prediction_type=name)
        z = torch.ones(1, 4, dtype=torch.float64)
        output = backend.forward(z, torch.tensor([1]), Conditioning(class_index=torch.tensor([0])))
        assert bool(output.isfinite().all())


# ------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("covariance_type", TYPES)
def test_likelihood_weighted_errors_integrate_to_the_exact_log_likelihood(covariance_type):
    # -1/2 int E||eps - eps_hat||^2 d lambda = log p(x | c) + const, without any Monte Carlo.
    backend = GaussianBackend(covariance_type=covariance_type).fit(X_IRIS, Y_IRIS)
    rows = X_IRIS[::25]
    weights = LikelihoodWeighting().weights(backend.schedule, "epsilon")
    estimate = -(expected_errors(backend, latents(backend, rows)) * weights).mean(-1).numpy()
    exact = backend.log_likelihood(rows)
    differences, wanted = (np.diff(values, axis=1) for values in (estimate, exact))
    assert np.abs(wanted).max() > 100  # nats
    np.testing.assert_allclose(differences, wanted, rtol=1e-5, atol=2e-4)
    np.testing.assert_allclose(softmax(estimate), softmax(exact), atol=1e-5)


def test_a_wide_schedule_is_variance_preserving_and_symmetric_about_log_snr_two():
    schedule = mixture.wide_schedule(1000)
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(1000).double())
    log_snr = schedule.log_snr
    assert log_snr[0] > 20 and log_snr[-1] < -16 and bool((log_snr.diff() < 0).all())
    torch.testing.assert_close(log_snr + log_snr.flip(0), torch.full((1000,), 4.0).double())


@pytest.mark.parametrize(("X", "y"), [(X_IRIS, Y_IRIS), (X_BLOBS, Y_BLOBS)], ids=["iris", "blobs"])
def test_two_thousand_draws_come_within_three_hundredths_of_the_posterior(X, y):
    backend = GaussianBackend().fit(X, y)
    n_classes = len(backend.classes_)
    qda = QuadraticDiscriminantAnalysis(priors=np.full(n_classes, 1 / n_classes))
    scaler = StandardScaler().fit(X)
    exact = qda.fit(scaler.transform(X), y).predict_proba(scaler.transform(X))
    unsure = np.argsort(exact.max(1))[:12]  # rows nearest to a decision boundary
    x = latents(backend, X[unsure])
    worst = [
        np.abs(drawn_log_likelihoods(backend, x, 2000, seed).softmax(1).numpy() - exact[unsure])
        for seed in range(10)
    ]
    assert np.mean([w.max() for w in worst]) <= 0.03


def test_draws_of_a_mixture_approach_its_exact_posterior():
    backend = gaussian_mixture(covariances=1.0)
    X, _ = backend.sample(15, random_state=3)
    estimate = torch.stack(
        [drawn_log_likelihoods(backend, latents(backend, X), 2000, seed) for seed in range(10)]
    ).mean(0)
    assert np.abs(softmax(estimate) - softmax(backend.log_likelihood(X))).max() < 0.03


@pytest.mark.parametrize("reg_param", [0.0, 0.2])
def test_full_classes_give_the_posterior_of_quadratic_discriminant_analysis(reg_param):
    backend = GaussianBackend(reg_param=reg_param).fit(X_IRIS, Y_IRIS)
    Z = StandardScaler().fit_transform(X_IRIS)
    qda = QuadraticDiscriminantAnalysis(reg_param=reg_param, priors=np.full(3, 1 / 3))
    expected = qda.fit(Z, Y_IRIS).predict_proba(Z)
    np.testing.assert_allclose(softmax(backend.log_likelihood(X_IRIS)), expected, atol=1e-10)


def test_shared_classes_give_the_posterior_of_linear_discriminant_analysis():
    backend = GaussianBackend(covariance_type="shared").fit(X_IRIS, Y_IRIS)
    lda = LinearDiscriminantAnalysis(priors=np.full(3, 1 / 3)).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(
        softmax(backend.log_likelihood(X_IRIS)), lda.predict_proba(X_IRIS), atol=1e-10
    )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_log_likelihood_is_that_of_scipy(covariance_type):
    backend, means, covariances = gaussian(covariance_type)
    X, _ = backend.sample(20, random_state=0)
    expected = [
        multivariate_normal(m, c).logpdf(X) for m, c in zip(means, covariances, strict=True)
    ]
    np.testing.assert_allclose(backend.log_likelihood(X), np.stack(expected, 1), rtol=1e-9)


def test_log_likelihood_of_a_mixture_is_the_log_of_its_weighted_densities():
    covariance = np.array([[2.0, 0.6], [0.6, 1.0]])
    backend = gaussian_mixture(covariances=covariance, covariance_type="shared")
    X, _ = backend.sample(20, random_state=0)
    for k in range(3):
        density = sum(
            weight * multivariate_normal(mean, covariance).pdf(X)
            for weight, mean in zip(backend.weights[k], backend.means[k], strict=True)
        )
        np.testing.assert_allclose(backend.log_likelihood(X)[:, k], np.log(density), rtol=1e-9)


# ------------------------------------------------------------------- fitting


@pytest.mark.parametrize("covariance_type", TYPES)
def test_given_moments_of_the_data_give_the_learned_posterior(covariance_type):
    learned = GaussianBackend(covariance_type=covariance_type).fit(X_IRIS, Y_IRIS)
    groups = [X_IRIS[k == Y_IRIS] for k in range(3)]
    covariances = np.stack([np.cov(rows.T) for rows in groups])
    if covariance_type == "shared":
        covariances = covariances.mean(0)
    if covariance_type == "diag":
        covariances = np.stack([rows.var(0, ddof=1) for rows in groups])
    means = [rows.mean(0) for rows in groups]
    given = GaussianBackend(means, covariances, covariance_type=covariance_type)
    given.fit(None, ["a", "b", "c"])
    np.testing.assert_allclose(
        given.log_likelihood(X_IRIS), learned.log_likelihood(X_IRIS), rtol=1e-8
    )
    assert given.classes_.tolist() == ["a", "b", "c"]
    # Latents are standardised by the moments of the whole, whichever way they came.
    np.testing.assert_allclose(given.center_, X_IRIS.mean(0))
    np.testing.assert_allclose(given.scale_, X_IRIS.std(0), rtol=0.02)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_units_of_the_features_do_not_matter(covariance_type):
    units, shift = np.array([1e-6, 1.0, 1e3, 1e9]), np.array([5.0, 0.0, -1e6, 1e9])
    plain = GaussianBackend(covariance_type=covariance_type, reg_param=0.1).fit(X_IRIS, Y_IRIS)
    other = clone(plain).fit(X_IRIS * units + shift * units, Y_IRIS)
    np.testing.assert_allclose(
        softmax(other.log_likelihood((X_IRIS + shift) * units)),
        softmax(plain.log_likelihood(X_IRIS)),
        atol=1e-4,
    )


def test_integer_tables_and_text_labels_are_learned():
    X = [[0, 1], [1, 0], [1, 2], [9, 8], [8, 9], [9, 11]]
    backend = GaussianBackend(reg_param=0.1).fit(X, list("aaabbb"))
    condition = backend.encode_classes(["b", "a", "b"], ["", "", ""])
    assert condition["class_index"].tolist() == [1, 0, 1]
    assert backend.log_likelihood(X).argmax(1).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_class_of_one_row_is_regularised_and_named(covariance_type):
    keep = np.append(np.flatnonzero(Y_IRIS < 2), 149)
    names = np.array(["setosa", "versicolor", "virginica"])[Y_IRIS[keep]]
    backend = GaussianBackend(covariance_type=covariance_type)
    with pytest.warns(UserWarning, match=r"class 'virginica' .*0\.01 was added") as caught:
        backend.fit(X_IRIS[keep], names)
    assert len(caught) == 1
    torch.testing.assert_close(backend.variances_[2, 0], torch.full((4,), 0.01).double())
    assert backend.log_likelihood(X_IRIS[[149]]).argmax() == 2
    untouched = GaussianBackend(covariance_type=covariance_type).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(
        backend.log_likelihood(X_IRIS)[:, :2], untouched.log_likelihood(X_IRIS)[:, :2], rtol=1e-8
    )


@pytest.mark.parametrize("covariance_type", ["full", "shared"])
def test_collinear_features_are_regularised(covariance_type):
    X = np.c_[X_IRIS, X_IRIS[:, 0] + X_IRIS[:, 1]]
    owner = "all classes" if covariance_type == "shared" else "classes 0, 1, 2"
    with pytest.warns(UserWarning, match=f"covariances of {owner}"):
        backend = GaussianBackend(covariance_type=covariance_type).fit(X, Y_IRIS)
    assert (backend.log_likelihood(X).argmax(1) == Y_IRIS).mean() > 0.95


def test_reg_param_makes_a_singular_covariance_regular_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend = GaussianBackend(reg_param=0.5).fit([[0.0], [1.0], [4.0]], [0, 0, 1])
    torch.testing.assert_close(backend.variances_[1, 0], torch.tensor([0.5]).double())


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_constant_feature_changes_no_posterior(covariance_type):
    X = np.insert(X_IRIS, 1, 1e6 / 3, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_it = GaussianBackend(covariance_type=covariance_type).fit(X, Y_IRIS)
    without = GaussianBackend(covariance_type=covariance_type).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(
        softmax(with_it.log_likelihood(X)), softmax(without.log_likelihood(X_IRIS)), atol=1e-9
    )


def test_samples_have_the_moments_of_their_class():
    backend, means, covariances = gaussian("full")
    X, y = backend.sample(30_000, random_state=0)
    for k in range(3):
        rows = X[y == k]
        assert abs(len(rows) / len(X) - 1 / 3) < 0.01
        np.testing.assert_allclose(rows.mean(0), means[k], atol=0.06)
        np.testing.assert_allclose(np.cov(rows.T), covariances[k], atol=0.12)


def test_samples_of_a_mixture_follow_weights_and_the_seed():
    means = np.array([[[-10.0, 0.0], [10.0, 0.0]], [[0.0, -10.0], [0.0, 10.0]]])
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    backend = GaussianMixtureBackend(
        means, covariance, [[0.25, 0.75], [1.0, 0.0]], covariance_type="shared"
    ).fit(None, ["a", "b"])
    X, y = backend.sample(8000, random_state=0)
    assert abs((X[y == "a", 0] > 0).mean() - 0.75) < 0.02
    assert (X[y == "b", 1] < 0).all()
    np.testing.assert_allclose(np.cov(X[y == "b"].T), covariance, atol=0.07)
    again, labels = backend.sample(8000, random_state=0)
    assert np.array_equal(X, again) and np.array_equal(y, labels)


def test_a_thousand_classes_in_256_dimensions_keep_their_tables_small():
    rng = np.random.default_rng(0)
    backend = GaussianMixtureBackend(rng.standard_normal((1000, 2, 256)), 0.5)
    backend.fit(None, np.arange(1000))
    assert backend.variances_.shape == (1, 1, 256)
    X, y = backend.sample(20, random_state=0)
    assert (backend.log_likelihood(X).argmax(1) == y).all()


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
        ({"means": MEANS}, "both means and covariances"),
        ({"means": [0.0, 1.0], "covariances": EYES}, r"means has shape \(2,\); expected \(K, F\)"),
        ({"means": MEANS, "covariances": np.eye(2)}, r"expected \(2, 2, 2\)"),
        ({"means": MEANS, "covariances": [[[1, 2], [2, 1]]] * 2}, "classes 'a', 'b' have negative"),
        ({"means": MEANS, "covariances": [[[1, 1], [0, 1]]] * 2}, "symmetric"),
        ({"means": MEANS, "covariances": [-np.eye(2)] * 2}, "negative variance, -1"),
        ({"means": [[0, np.nan], [1, 1]], "covariances": EYES}, "means holds NaN"),
        ({"means": MEANS * 2, "covariances": EYES * 2}, "y names 2 classes, but .* for 4"),
        ({"covariance_type": "tied"}, "covariance_type='tied' is not known"),
        ({"prediction_type": "noise"}, "prediction_type='noise' is not known"),
        ({"reg_param": 1.5}, "reg_param=1.5 must be between 0 and 1"),
    ],
)
def test_wrong_gaussian_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        GaussianBackend(**params).fit(None, ["a", "b"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"means": MEANS}, r"means has shape \(2, 2\); expected \(K, M, F\)"),
        ({"covariances": [1.0, 1.0, 1.0]}, r"\(3,\) do not broadcast .* \(2, 1, 2\)"),
        ({"weights": [[1.0]]}, r"weights has shape \(1, 1\); expected \(2, 1\)"),
        ({"weights": [[0.9], [1.0]]}, "must sum to 1"),
        ({"covariance_type": "full"}, "covariance_type='full' is not known"),
    ],
)
def test_wrong_mixture_parameters_are_named(params, message):
    params = {"means": [[[0.0, 0.0]], [[1.0, 1.0]]], "covariances": 1.0} | params
    with pytest.raises(ValueError, match=message):
        GaussianMixtureBackend(**params).fit(None, ["a", "b"])


def test_wrong_schedules_rows_and_labels_are_named():
    with pytest.raises(TypeError, match="must be a NoiseSchedule or None"):
        GaussianBackend(schedule="cosine")
    with pytest.raises(ValueError, match="n_timesteps=0 must be a positive integer"):
        _ = GaussianBackend(n_timesteps=0).schedule
    backend, _, _ = gaussian("full")
    with pytest.raises(ValueError, match=r"rows of shape \(5, 3\).*expected \(n_rows, 4\)"):
        backend.encode_images(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"labels\[1\]=7 is not one of the 3 classes.*0, 1, 2"):
        backend.encode_classes([0, 7], ["0", "7"])
