"""The answers of a table beside the true labels, for the displays that compare them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputValueError
from ..estimator.classes.labels import read_labels
from ..records.table import ErrorTable
from ..utils.intervals import Estimate, wilson


class Answers(NamedTuple):
    """Probabilities and true labels of the images that were not skipped.

    Attributes
    ----------
    images : ndarray of shape (n,)
        Their indices in the table.
    proba : ndarray of shape (n, K)
    y : ndarray of shape (n,)
        True labels.
    predicted : ndarray of shape (n,)
        Predicted labels.
    """

    images: NDArray[np.int64]
    proba: NDArray[np.float64]
    y: NDArray[Any]
    predicted: NDArray[Any]


def answers_of(table: ErrorTable, y: Any) -> Answers:
    """Return the answers of a table.

    Raises
    ------
    InputValueError
        If the table and y differ in length, or all images were skipped.
    """
    labels = check_labels(y, len(table))
    images = np.setdiff1d(np.arange(len(table)), [image for image, _ in table.skipped])
    if not len(images):
        raise InputValueError(f"every image was skipped; the first: {table.skipped[0]}")
    proba = table[images].predict_proba()
    return Answers(images, proba, labels[images], table.classes[proba.argmax(1)])


def check_labels(y: Any, n: int) -> NDArray[Any]:
    """Return true labels as an array; raise an InputValueError unless there are ``n``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about few images of many classes
        labels = read_labels(y, unique=False)
    if len(labels) != n:
        raise InputValueError(
            f"y holds {len(labels)} labels, but there are {n} images; give one label per image."
        )
    return labels


def share(right: NDArray[np.bool_]) -> Estimate:
    """Return the share of True, and the ends of Wilson's 95 % interval.

    Examples
    --------
    >>> [round(end, 3) for end in share(np.array([True, True, True, False]))]
    [0.75, 0.301, 0.954]
    """
    return wilson(int(right.sum()), len(right))
