"""Checks and moments of the parameters that the exact backends are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputValueError


def total_moments(
    means: NDArray, covariances: NDArray, weights: NDArray, covariance_type: str
) -> tuple[NDArray, NDArray]:
    """Return mean and standard deviation [F] of the mixture of all classes with equal priors.

    Arguments are those of ``_set_components``.

    Raises
    ------
    InputValueError
        If a variance is negative.
    """
    variances = covariances
    if covariance_type != "diag":
        variances = np.diagonal(covariances, axis1=-2, axis2=-1)
        variances = variances.reshape(-1, 1, means.shape[-1])
    if (variances < 0).any():
        raise InputValueError(
            f"covariances hold a negative variance, {variances.min():.3g}; variances must be >= 0."
        )
    share = weights[..., None] / len(means)
    center = (share * means).sum((0, 1))
    return center, np.sqrt((share * (variances + (means - center) ** 2)).sum((0, 1)))


def as_finite(name: str, value: Any, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """Convert ``value`` to a finite float64 array of ``shape``.

    Strings in ``shape`` name axes of any length.

    Raises
    ------
    InputValueError
        If the shape differs, or a value is NaN or infinite.
    """
    array = np.asarray(value, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        isinstance(wanted, str) or wanted == got
        for wanted, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        raise InputValueError(f"{name} has shape {array.shape}; expected ({wanted}).")
    if not np.isfinite(array).all():
        index = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise InputValueError(f"{name} holds NaN or infinity, first at index {index}.")
    return array


def as_matrices(value: Any, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """Convert ``value`` to symmetric covariance matrices of ``shape``.

    Raises
    ------
    InputValueError
        If the shape differs, a value is not finite, or a matrix is not symmetric.
    """
    matrices = as_finite("covariances", value, shape)
    if not np.allclose(matrices, matrices.swapaxes(-1, -2)):
        raise InputValueError("covariances must be symmetric matrices.")
    return matrices
