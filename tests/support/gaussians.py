"""Tables and exact backends of known parameters, shared by the tests of analytic backends."""

import numpy as np
import torch
from sklearn.datasets import load_iris, make_blobs

from diffusion_classifier.backends.exact import GaussianBackend, GaussianMixtureBackend

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
