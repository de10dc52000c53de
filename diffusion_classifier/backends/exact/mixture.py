"""Gaussian-mixture classes with the closed-form optimal noise prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InputValueError
from ...noise.prediction import PREDICTION_TYPES
from ...noise.schedule import NoiseSchedule
from ...utils.validation import check_option
from .base import MixtureBackend, as_finite, as_matrices, classes_of


class GaussianMixtureBackend(MixtureBackend):
    """A mixture of Gaussians per class, with the closed-form optimal noise prediction.

    Rows are standardised inside, by the mean and standard deviation of the mixture of all
    classes, taken as equally likely.

    Parameters
    ----------
    means : array-like of shape (K, M, F)
        Means of the M components of each class, in the order of the sorted labels.
    covariances : array-like
        "diag": variances, broadcastable to (K, M, F); a scalar makes every component isotropic
        and alike. "shared": one matrix (F, F) for all components.
    weights : array-like of shape (K, M) or None, default=None
        Probabilities of the components, each row summing to 1. None: equal ones.
    covariance_type : {"diag", "shared"}, default="diag"
    n_timesteps : int, default=1000
        Length of the backend's own noise schedule; without effect if ``schedule`` is given.
    schedule : NoiseSchedule or None, default=None
        None is :func:`~diffusion_classifier.backends.exact.base.wide_schedule`.
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}, default="epsilon"
        What ``forward`` outputs.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Sorted labels.
    center_, scale_ : ndarray of shape (F,)
        A row x of X is standardised to ``(x - center_) / scale_``.
    means_, variances_ : Tensor of shape (K, M, F) or broadcastable to it
        The components in the basis where their covariance is diagonal.
    log_weights_ : Tensor of shape (K, M)

    Warns
    -----
    UserWarning
        In ``fit``, if a covariance is near-singular: it names the classes and what was added.

    Examples
    --------
    >>> means = [[[-4.0], [4.0]], [[-1.0], [1.0]]]
    >>> backend = GaussianMixtureBackend(means, 1.0).fit(None, ["far", "near"])
    >>> X, y = backend.sample(200, random_state=0)
    >>> answers = backend.classes_[backend.log_likelihood(X).argmax(1)]
    >>> float((answers == y).mean())
    0.94
    """

    def __init__(
        self,
        means: ArrayLike,
        covariances: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        covariance_type: str = "diag",
        n_timesteps: int = 1000,
        schedule: NoiseSchedule | None = None,
        prediction_type: str = "epsilon",
    ) -> None:
        self.means = means
        self.covariances = covariances
        self.weights = weights
        self.covariance_type = covariance_type
        self.n_timesteps = n_timesteps
        self.schedule = schedule
        self.prediction_type = prediction_type

    def fit(self, X: Any, y: Any) -> GaussianMixtureBackend:
        """Name the classes.

        Parameters
        ----------
        X : None or anything
            Not used: the classes are given.
        y : array-like of shape (N,)
            Labels; in sorted order they belong to the rows of ``means``.

        Returns
        -------
        GaussianMixtureBackend
            The fitted backend itself.

        Raises
        ------
        ValueError
            If y does not name K classes, or a parameter has a wrong shape or value.
        """
        check_option("covariance_type", self.covariance_type, ("diag", "shared"))
        check_option("prediction_type", self.prediction_type, PREDICTION_TYPES)
        means = as_finite("means", self.means, ("K", "M", "F"))
        self.classes_ = classes_of(y, means)
        n_classes, n_components, n_features = means.shape
        if self.covariance_type == "shared":
            covariances = as_matrices(self.covariances, (n_features, n_features))
        else:
            covariances = as_finite("covariances", self.covariances, np.shape(self.covariances))
            pairs = zip(covariances.shape[::-1], means.shape[::-1], strict=False)
            if covariances.ndim > 3 or any(got not in (1, wanted) for got, wanted in pairs):
                raise InputValueError(
                    f"covariances of shape {covariances.shape} do not broadcast to the shape of "
                    f"means, {means.shape}."
                )
        if self.weights is None:
            weights = np.full((n_classes, n_components), 1 / n_components)
        else:
            weights = as_finite("weights", self.weights, (n_classes, n_components))
        if (weights < 0).any() or not np.allclose(weights.sum(1), 1):
            raise InputValueError("weights must not be negative and each class's must sum to 1.")
        self._set_components(means, covariances, weights, self.covariance_type)
        return self
