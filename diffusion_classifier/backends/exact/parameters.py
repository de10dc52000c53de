"""Checks and moments of the parameters and labels that the exact backends are given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputValueError
from ...utils.constraints import as_numbers
from ...utils.display import short_repr


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

    Strings in ``shape`` name axes of any length but 0.

    Raises
    ------
    InputValueError
        If the shape differs, there are no items, or an item is not a finite number.
    """
    array = as_numbers(name, value)
    fits = (
        array.size
        and array.ndim == len(shape)
        and all(
            isinstance(wanted, str) or wanted == got
            for wanted, got in zip(shape, array.shape, strict=True)
        )
    )
    if not fits:
        wanted = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        raise InputValueError(
            f"{name}={short_repr(value)} has shape {array.shape}; expected ({wanted})."
            + " No axis may be empty." * (not array.size)
        )
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


def class_positions(classes: Any, labels: Sequence[Any]) -> Tensor:
    """Look up the positions of labels in the sorted classes.

    Parameters
    ----------
    classes : ndarray of shape (K,)
        Sorted and without duplicates.
    labels : sequence of length P

    Returns
    -------
    Tensor of shape (P,), dtype int64

    Raises
    ------
    InputValueError
        If a label is not one of the classes.

    Examples
    --------
    >>> import numpy as np
    >>> class_positions(np.array(["cat", "dog"]), ["dog", "cat", "dog"]).tolist()
    [1, 0, 1]
    """
    position = {label: k for k, label in enumerate(np.asarray(classes).tolist())}
    for p, label in enumerate(labels):
        if label not in position:
            raise InputValueError(
                f"labels[{p}]={label!r} is not one of the {len(position)} classes given to fit, "
                f"{', '.join(map(repr, list(position)[:10]))}; call fit again with all labels."
            )
    return torch.tensor([position[label] for label in labels], dtype=torch.int64)


def hash_learned(attributes: Mapping[str, Any]) -> str:
    """Hash the arrays that ``fit`` learned; the classes are places among them, not their names."""
    content = hashlib.sha256()
    for name, value in sorted(attributes.items()):
        if name.endswith("_") and name != "classes_" and isinstance(value, Tensor | np.ndarray):
            content.update(f"{name} {tuple(value.shape)}".encode())
            content.update(np.ascontiguousarray(value).tobytes())
    return content.hexdigest()
