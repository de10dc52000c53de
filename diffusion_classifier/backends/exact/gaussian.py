"""Exact noise predictors: Gaussian and Gaussian-mixture classes, given or learned from a table.

With :class:`GaussianBackend` the classifier works on any numeric table, and with "likelihood"
weights its probabilities converge to those of quadratic discriminant analysis: a check of every
other part without a network. The mathematics is in :mod:`diffusion_classifier.backends.exact.base`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_X_y

from ...errors import InputValueError
from ...noise.prediction import PREDICTION_TYPES
from ...noise.schedule import NoiseSchedule
from ...utils.validation import check_option
from .base import MixtureBackend, as_finite, as_matrices, classes_of


class GaussianBackend(MixtureBackend):
    """One Gaussian per class, with the closed-form optimal noise prediction.

    Rows are standardised inside: by the mean and standard deviation of X, or of the given
    classes taken as equally likely. Learned means and covariances are those of maximum
    likelihood, as in scikit-learn's discriminant analyses and naive Bayes.

    Parameters
    ----------
    means : array-like of shape (K, F) or None, default=None
        Means of the classes, in the order of the sorted labels, in units of X. None: learned in
        ``fit(X, y)``, together with the covariances.
    covariances : array-like or None, default=None
        Of shape (K, F, F) if "full", (F, F) if "shared", (K, F) if "diag", in squared units of X.
    covariance_type : {"full", "shared", "diag"}, default="full"
        One covariance matrix per class, one for all classes, or one vector of variances per
        class. "shared" and "diag" need no matrix products in ``forward``.
    reg_param : float in [0, 1], default=0.0
        Each covariance S becomes ``(1 - reg_param) S + reg_param I``, on standardised features
        (as in scikit-learn's QuadraticDiscriminantAnalysis on standardised data).
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
    means_, variances_ : Tensor of shape (K, 1, F) or broadcastable to it
        The classes in the basis where their covariance is diagonal.

    Warns
    -----
    UserWarning
        In ``fit``, if a covariance is near-singular (one row, constant or collinear features):
        it names the classes and what was added.

    References
    ----------
    X. Kong, R. Brekelmans and G. Ver Steeg, "Information-Theoretic Diffusion", ICLR 2023.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> backend = GaussianBackend().fit(*load_iris(return_X_y=True))
    >>> condition = backend.encode_classes([0, 2], ["setosa", "virginica"])
    >>> x = backend.encode_images(torch.tensor([[5.1, 3.5, 1.4, 0.2]])).expand(2, 4)
    >>> backend.forward(x, torch.tensor([500, 500]), condition).shape
    torch.Size([2, 4])
    >>> backend.log_likelihood([[5.1, 3.5, 1.4, 0.2]]).argmax(1).tolist()
    [0]
    """

    def __init__(
        self,
        means: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
        *,
        covariance_type: str = "full",
        reg_param: float = 0.0,
        n_timesteps: int = 1000,
        schedule: NoiseSchedule | None = None,
        prediction_type: str = "epsilon",
    ) -> None:
        self.means = means
        self.covariances = covariances
        self.covariance_type = covariance_type
        self.reg_param = reg_param
        self.n_timesteps = n_timesteps
        self.schedule = schedule
        self.prediction_type = prediction_type

    def fit(self, X: Any, y: Any) -> GaussianBackend:
        """Learn the classes from rows and labels, or only the labels of given classes.

        Parameters
        ----------
        X : array-like of shape (N, F) or None
            Not used if means and covariances were given.
        y : array-like of shape (N,)
            Labels; those of given classes, in sorted order, belong to the rows of ``means``.

        Returns
        -------
        GaussianBackend
            The fitted backend itself.

        Raises
        ------
        ValueError
            If only one of means and covariances was given, X is None while there is none, or a
            parameter has a wrong shape or value.
        """
        check_option("covariance_type", self.covariance_type, ("full", "shared", "diag"))
        check_option("prediction_type", self.prediction_type, PREDICTION_TYPES)
        if not 0 <= self.reg_param <= 1:
            raise InputValueError(f"reg_param={self.reg_param!r} must be between 0 and 1.")
        if (self.means is None) != (self.covariances is None):
            raise InputValueError(
                "give both means and covariances, or neither to learn them in fit."
            )
        if self.means is not None:
            self._fit_given(y)
        elif X is not None:
            self._fit_rows(*check_X_y(X, y, dtype=np.float64))
        else:
            raise InputValueError(
                "X is None, but GaussianBackend() learns its classes from rows: call fit(X, y), "
                "or give means and covariances."
            )
        return self

    def _fit_given(self, y: Any) -> None:
        means = as_finite("means", self.means, ("K", "F"))
        self.classes_ = classes_of(y, means)
        n_classes, n_features = means.shape
        if self.covariance_type == "diag":
            covariances = as_finite("covariances", self.covariances, means.shape)[:, None]
        elif self.covariance_type == "shared":
            covariances = as_matrices(self.covariances, (n_features, n_features))
        else:
            covariances = as_matrices(self.covariances, (n_classes, n_features, n_features))
        self._set_components(
            means[:, None],
            covariances,
            np.ones((n_classes, 1)),
            self.covariance_type,
            reg_param=self.reg_param,
        )

    def _fit_rows(self, X: NDArray, y: NDArray) -> None:
        self.classes_, index = np.unique(y, return_inverse=True)
        groups = [X[index == k] for k in range(len(self.classes_))]
        means = np.stack([rows.mean(0) for rows in groups])
        centred = [rows - mean for rows, mean in zip(groups, means, strict=True)]
        if self.covariance_type == "diag":
            covariances = np.stack([(rows**2).mean(0) for rows in centred])[:, None]
        elif self.covariance_type == "shared":
            within = np.concatenate(centred)
            covariances = within.T @ within / len(within)
        else:
            covariances = np.stack([rows.T @ rows / len(rows) for rows in centred])
        self._set_components(
            means[:, None],
            covariances,
            np.ones((len(groups), 1)),
            self.covariance_type,
            reg_param=self.reg_param,
            center=X.mean(0),
            deviation=X.std(0),
        )
