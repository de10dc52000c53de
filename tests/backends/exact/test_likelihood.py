"""Exact backends against scikit-learn, scipy and closed-form integrals: likelihoods and fitting."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

from diffusion_classifier.backends import Conditioning
from diffusion_classifier.backends.exact import GaussianBackend, GaussianMixtureBackend, base
from diffusion_classifier.scoring import LikelihoodWeighting
from tests.support.gaussians import (
    TYPES,
    X_BLOBS,
    X_IRIS,
    Y_BLOBS,
    Y_IRIS,
    gaussian,
    gaussian_mixture,
    latents,
    softmax,
)


def expected_errors(backend, x):
    """E||eps - eps_hat||^2 [N, K, T], exact for Gaussians: the residual is affine in the noise.

    With residual r0 + B eps it is ||r0||^2 + ||B||^2, read off ``forward`` at eps = 0 and at the
    unit vectors.
    """
    (n, n_features), n_classes = x.shape, len(backend.classes_)
    n_timesteps = backend.schedule.n_timesteps
    eps = torch.cat([torch.zeros(1, n_features), torch.eye(n_features)]).to(torch.float64)
    shape = (n, n_classes, n_timesteps, n_features + 1)
    i, k, t, e = (
        index.flatten() for index in torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    )
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
    assert np.abs(wanted).max() > 90  # nats
    np.testing.assert_allclose(differences, wanted, rtol=2e-5, atol=5e-4)
    np.testing.assert_allclose(softmax(estimate), softmax(exact), atol=1e-5)


def test_a_wide_schedule_is_variance_preserving_and_symmetric_about_log_snr_two():
    schedule = base.wide_schedule(1000)
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


def class_covariances(X, y):
    """Covariance of each class, divided by its number of rows."""
    return [np.cov(X[y == k].T, bias=True) for k in range(3)]


def gaussian_posterior(X, y, covariances):
    """Posterior of equally likely Gaussian classes with the means of X and these covariances.

    scikit-learn's discriminant analyses are these, but divide by n or by n - 1 as their version has
    it.
    """
    log_likelihoods = [
        multivariate_normal(X[y == k].mean(0), covariance).logpdf(X)
        for k, covariance in enumerate(covariances)
    ]
    return softmax(np.stack(log_likelihoods, 1))


@pytest.mark.parametrize("reg_param", [0.0, 0.2])
def test_full_classes_give_the_posterior_of_quadratic_discriminant_analysis(reg_param):
    backend = GaussianBackend(reg_param=reg_param).fit(X_IRIS, Y_IRIS)
    Z = StandardScaler().fit_transform(X_IRIS)
    covariances = [
        (1 - reg_param) * covariance + reg_param * np.eye(4)
        for covariance in class_covariances(Z, Y_IRIS)
    ]
    expected = gaussian_posterior(Z, Y_IRIS, covariances)
    np.testing.assert_allclose(softmax(backend.log_likelihood(X_IRIS)), expected, atol=1e-10)


def test_diagonal_classes_give_the_posterior_of_gaussian_naive_bayes():
    backend = GaussianBackend(covariance_type="diag").fit(X_IRIS, Y_IRIS)
    bayes = GaussianNB(priors=np.full(3, 1 / 3), var_smoothing=0).fit(X_IRIS, Y_IRIS)
    expected = bayes.predict_proba(X_IRIS)
    np.testing.assert_allclose(softmax(backend.log_likelihood(X_IRIS)), expected, atol=1e-10)


def test_shared_classes_give_the_posterior_of_linear_discriminant_analysis():
    backend = GaussianBackend(covariance_type="shared").fit(X_IRIS, Y_IRIS)
    pooled = np.mean(class_covariances(X_IRIS, Y_IRIS), axis=0)
    expected = gaussian_posterior(X_IRIS, Y_IRIS, [pooled] * 3)
    np.testing.assert_allclose(softmax(backend.log_likelihood(X_IRIS)), expected, atol=1e-10)


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
    covariances = np.stack([np.cov(rows.T, ddof=0) for rows in groups])
    if covariance_type == "shared":
        covariances = covariances.mean(0)
    if covariance_type == "diag":
        covariances = np.stack([rows.var(0) for rows in groups])
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
