"""What the user says of the classes: labels and priors, checked."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor


def read_labels(y: Any, *, unique: bool) -> NDArray:
    """Labels as a vector.

    Parameters
    ----------
    y : array-like of shape (n,)
    unique : bool
        Whether each label may be there once only, as when labels name the classes.

    Raises
    ------
    ValueError
        If ``y`` is None or not one-dimensional, holds numbers that are not classes, or holds a
        label twice although ``unique``.
    """
    if y is None:
        raise ValueError(
            "fit requires y to be passed, but the target y is None; for zero-shot use call "
            "fit(None, labels)."
        )
    if isinstance(y, str | bytes | set | dict):
        raise ValueError(f"y={y!r} must be a list or an array of labels.")
    labels = column_or_1d(np.asarray(y), warn=True)
    try:
        names, counts = np.unique(labels, return_counts=True)
    except TypeError as error:
        raise ValueError(f"labels {labels.tolist()[:5]} must all be of one type.") from error
    if len(labels):
        with warnings.catch_warnings():
            if unique:  # as many classes as labels looks like regression
                warnings.simplefilter("ignore", UserWarning)
            check_classification_targets(labels)
    if unique and (counts > 1).any():
        raise ValueError(
            f"labels {names[counts > 1].tolist()} are given more than once; "
            "fit(None, labels) takes each class once."
        )
    return labels


def find_classes(labels: NDArray) -> NDArray:
    """The sorted classes, of which there must be two at least."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"y names {len(classes)} class ({classes.tolist()}); give at least two classes."
        )
    return classes


def read_log_prior(priors: Any, n_classes: int) -> Tensor:
    """Normalised log priors [K], float64; uniform from None.

    Raises
    ------
    ValueError
        If priors are not ``n_classes`` positive finite numbers.
    """
    try:
        values = np.ones(n_classes) if priors is None else np.asarray(priors, float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (n_classes,) or not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError(
            f"priors={priors!r} must be {n_classes} positive numbers, in the order of the sorted "
            "labels."
        )
    return torch.as_tensor(np.log(values / values.sum()))


def warn_of_numbers(classes: NDArray, example: str) -> None:
    """Warn that a text model will read numbers; ``example`` is the first prompt."""
    if classes.dtype.kind in "biuf":
        warnings.warn(
            f"labels are numbers, so the model reads prompts such as {example!r}; name the "
            "classes in words, or pass prompts={label: prompt}.",
            UserWarning,
            stacklevel=3,
        )
