"""Checks of the labels passed to ``fit``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..errors import InputValueError


def read_labels(y: Any, *, unique: bool) -> NDArray:
    """Check labels and return them as a one-dimensional array.

    Parameters
    ----------
    y : array-like of shape (n,)
    unique : bool
        Whether to require distinct labels, as in ``fit(None, labels)``.

    Raises
    ------
    InputValueError
        If ``y`` is None or no array-like, mixes types, or repeats a label although ``unique``.
    ValueError
        Raised by scikit-learn if ``y`` is not one-dimensional or holds continuous numbers.
    """
    if y is None:
        raise InputValueError(
            "fit requires y to be passed, but the target y is None; for zero-shot use, call "
            "fit(None, labels)."
        )
    if isinstance(y, str | bytes | set | dict):
        raise InputValueError(f"y={y!r} must be a list or array of labels.")
    labels = column_or_1d(np.asarray(y), warn=True)
    try:
        names, counts = np.unique(labels, return_counts=True)
    except TypeError as error:
        raise InputValueError(f"labels {labels.tolist()[:5]} must all be of one type.") from error
    if len(labels):
        with warnings.catch_warnings():
            if unique:  # scikit-learn takes as many classes as labels for regression
                warnings.simplefilter("ignore", UserWarning)
            check_classification_targets(labels)
    if unique and (counts > 1).any():
        raise InputValueError(
            f"labels {names[counts > 1].tolist()} are given more than once; pass "
            "each class to fit(None, labels) once."
        )
    return labels


def find_classes(labels: NDArray) -> NDArray:
    """Return the sorted classes; raise an InputValueError if there are fewer than two."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise InputValueError(
            f"y names {len(classes)} class ({classes.tolist()}); give at least two classes."
        )
    return classes


def warn_of_numbers(classes: NDArray, example: str) -> None:
    """Warn if labels are numbers, which a text model would read; ``example`` is a prompt."""
    if classes.dtype.kind in "biuf":
        warnings.warn(
            f"labels are numbers, so the model reads prompts such as {example!r}; name the "
            "classes in words, or pass prompts={label: prompt}.",
            UserWarning,
            stacklevel=3,
        )
