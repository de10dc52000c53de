"""Gaussian-mixture classes with the closed-form optimal noise prediction.

:mod:`diffusion_classifier.backends.exact.base` explains the mathematics.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from ...errors import InputValueError
from ...noise.prediction import PredictionTypeName
from ...noise.schedule import NoiseSchedule
from ...utils.constraints import Options, Table, as_numbers, check_parameters
from ...utils.display import short_repr
from .base import MixtureBackend
from .parameters import as_finite, as_matrices


class GaussianMixtureBackend(MixtureBackend):
    """One Gaussian mixture per class, with the closed-form optimal noise prediction.

    Rows are standardised internally by the mean and standard deviation of the mixture of all
    classes with equal priors.

    Parameters
    ----------
    means : array-like of shape (K, M, F)
        Means of the M components of each class, in the order of the sorted labels.
    covariances : array-like
        "diag": variances, broadcastable to (K, M, F); a scalar makes all components isotropic
        with that variance. "shared": one matrix of shape (F, F) for all components.
    weights : array-like of shape (K, M) or None, default=None
        Probabilities of the components; each row sums to 1. None gives all the same weight.
    covariance_type : {"diag", "shared"}, default="diag"
        One vector of variances per component, or one covariance matrix for all components.
    n_timesteps : int, default=1000
        Length of the default noise schedule, at most 100,000; ignored if ``schedule`` is given.
    schedule : NoiseSchedule or None, default=None
        Noise schedule. None is :func:`~diffusion_classifier.backends.exact.base.wide_schedule`.
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}, default="epsilon"
        What ``forward`` returns.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Sorted labels.
    center_, scale_ : ndarray of shape (F,)
        A row x of X is standardised to ``(x - center_) / scale_``.
    means_, variances_ : Tensor of shape (K, M, F) or broadcastable to it
        Means and variances of the components in the basis where their covariance is diagonal.
    log_weights_ : Tensor of shape (K, M)
        Logarithms of the weights.

    Warns
    -----
    UserWarning
        In ``fit``, if a covariance is near-singular. The warning names the classes and the
        variance that was added.

    Examples
    --------
    >>> means = [[[-4.0], [4.0]], [[-1.0], [1.0]]]
    >>> backend = GaussianMixtureBackend(means, 1.0).fit(None, ["far", "near"])
    >>> X, y = backend.sample(200, random_state=0)
    >>> answers = backend.classes_[backend.log_likelihood(X).argmax(1)]
    >>> float((answers == y).mean())
    0.94
    """

    _constraints: ClassVar[Table] = {
        **MixtureBackend._constraints,
        "covariance_type": Options("diag", "shared"),
    }
    covariances: ArrayLike  # required, unlike in the base class

    def __init__(
        self,
        means: ArrayLike,
        covariances: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        covariance_type: Literal["diag", "shared"] = "diag",
        n_timesteps: int = 1000,
        schedule: NoiseSchedule | None = None,
        prediction_type: PredictionTypeName = "epsilon",
    ) -> None:
        super().__init__(
            means,
            covariances,
            covariance_type=covariance_type,
            n_timesteps=n_timesteps,
            schedule=schedule,
            prediction_type=prediction_type,
        )
        self.weights = weights

    def fit(self, X: Any, y: Any) -> GaussianMixtureBackend:
        """Assign labels to the given classes.

        Parameters
        ----------
        X : object
            Ignored.
        y : array-like of shape (N,)
            Labels; in sorted order they belong to the rows of ``means``.

        Returns
        -------
        GaussianMixtureBackend
            The fitted backend itself.

        Raises
        ------
        InputValueError
            If y does not name K classes, or a parameter has a wrong shape or value.
        """
        check_parameters(self)
        if self.means is None:
            raise InputValueError(
                "means=None: a GaussianMixtureBackend learns no classes from rows; give means "
                "(K, M, F), or learn one Gaussian for each class with GaussianBackend()."
            )
        means = self._read_means(y, ("K", "M", "F"))
        n_classes, n_components, n_features = means.shape
        if self.covariance_type == "shared":
            covariances = as_matrices(self.covariances, (n_features, n_features))
        else:
            covariances = as_numbers("covariances", self.covariances)
            pairs = zip(covariances.shape[::-1], means.shape[::-1], strict=False)
            if covariances.ndim > 3 or any(got not in (1, wanted) for got, wanted in pairs):
                raise InputValueError(
                    f"covariances={short_repr(self.covariances)} of shape {covariances.shape} do "
                    f"not broadcast to the shape of means, {means.shape}."
                )
        if self.weights is None:
            weights = np.full((n_classes, n_components), 1 / n_components)
        else:
            weights = as_finite("weights", self.weights, (n_classes, n_components))
        if (weights < 0).any() or not np.allclose(weights.sum(1), 1):
            raise InputValueError(
                "weights must be nonnegative and each row must sum to 1, but the smallest is "
                f"{weights.min():.3g} and the rows sum to {short_repr(weights.sum(1).tolist())}."
            )
        self._set_components(means, covariances, weights)
        return self
