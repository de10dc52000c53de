"""Gaussian classes, given or learned from a table, with the optimal noise prediction.

With :class:`GaussianBackend` the classifier works on any numeric table. With "likelihood" weights
(those that turn errors into an estimate of the log-likelihood) its probabilities converge to those
of quadratic discriminant analysis, which tests all other parts of the package without a network.
:mod:`diffusion_classifier.backends.exact.base` explains the mathematics.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_X_y

from ...errors import InputValueError
from ...noise.prediction import PredictionTypeName
from ...noise.schedule import NoiseSchedule
from ...utils.constraints import Options, Reals, Table, check_parameters
from ...utils.display import short_repr
from .base import MixtureBackend
from .parameters import as_finite, as_matrices


class GaussianBackend(MixtureBackend):
    """One Gaussian per class, with the closed-form optimal noise prediction.

    Rows are standardised internally by the mean and standard deviation of X, or, if the classes
    are given, of their mixture with equal priors. Learned means and covariances are maximum
    likelihood estimates, as in scikit-learn's discriminant analyses and naive Bayes.

    Parameters
    ----------
    means : array-like of shape (K, F) or None, default=None
        Means of the classes, in the order of the sorted labels and in units of X. None learns
        means and covariances in ``fit(X, y)``.
    covariances : array-like or None, default=None
        Covariances of shape (K, F, F) if "full" or (F, F) if "shared", or variances of shape
        (K, F) if "diag", in squared units of X.
    covariance_type : {"full", "shared", "diag"}, default="full"
        One covariance matrix per class, one for all classes, or one vector of variances per
        class. "shared" and "diag" need no matrix products in ``forward``.
    reg_param : float in [0, 1], default=0.0
        Each covariance S becomes ``(1 - reg_param) S + reg_param I`` on standardised features,
        as in scikit-learn's QuadraticDiscriminantAnalysis on standardised data.
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
    means_, variances_ : Tensor of shape (K, 1, F) or broadcastable to it
        Means and variances of the classes in the basis where their covariance is diagonal.

    Warns
    -----
    UserWarning
        In ``fit``, if a covariance is near-singular (one row, constant or collinear features).
        The warning names the classes and the variance that was added.

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

    _constraints: ClassVar[Table] = {
        **MixtureBackend._constraints,
        "covariance_type": Options("full", "shared", "diag"),
        "reg_param": Reals(0, 1),
    }

    def __init__(
        self,
        means: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
        *,
        covariance_type: Literal["full", "shared", "diag"] = "full",
        reg_param: float = 0.0,
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
        self.reg_param = reg_param

    def fit(self, X: Any, y: Any) -> GaussianBackend:
        """Learn the classes from rows and labels, or assign labels to the given classes.

        Parameters
        ----------
        X : array-like of shape (N, F) or None
            Ignored if means and covariances were given.
        y : array-like of shape (N,)
            Labels. If means were given, their rows belong to the labels in sorted order.

        Returns
        -------
        GaussianBackend
            The fitted backend itself.

        Raises
        ------
        InputValueError
            If only one of means and covariances was given, neither they nor X were given, or a
            parameter has a wrong shape or value.
        """
        check_parameters(self)
        if (self.means is None) != (self.covariances is None):
            raise InputValueError(
                f"means={short_repr(self.means)} and covariances={short_repr(self.covariances)}: "
                "give both, or neither to learn them in fit."
            )
        moments: dict[str, NDArray] = {}
        if self.means is not None:
            means, covariances = self._read_given(y)
        elif X is not None:
            X, y = check_X_y(X, y, dtype=np.float64)
            means, covariances = self._learn(X, y)
            moments = {"center": X.mean(0), "deviation": X.std(0)}
        else:
            raise InputValueError(
                "X is None, but GaussianBackend() learns its classes from rows: call fit(X, y), "
                "or give means and covariances."
            )
        one_component = np.ones((len(means), 1))
        self._set_components(
            means[:, None], covariances, one_component, reg_param=self.reg_param, **moments
        )
        return self

    def _read_given(self, y: Any) -> tuple[NDArray, NDArray]:
        """Check and return the given means and covariances."""
        means = self._read_means(y, ("K", "F"))
        n_classes, n_features = means.shape
        if self.covariance_type == "diag":
            covariances = as_finite("covariances", self.covariances, means.shape)[:, None]
        elif self.covariance_type == "shared":
            covariances = as_matrices(self.covariances, (n_features, n_features))
        else:
            covariances = as_matrices(self.covariances, (n_classes, n_features, n_features))
        return means, covariances

    def _learn(self, X: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """Estimate and return the means and covariances of the classes."""
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
        return means, covariances
