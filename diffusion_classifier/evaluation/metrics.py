r"""How good answers are, from the log posterior of each image and its true class.

With p_k = p(k | x) and y the true class, an image has

    log-loss     -log p_y                       Brier score  sum_k (p_k - [k = y])^2
    rank         1 + the number of classes before y, the most probable first

The *expected calibration error* puts answers into bins of equal width by their confidence, the
largest p_k: ``ECE = sum_b n_b / n |accuracy_b - mean confidence_b|`` (Guo et al., "On Calibration
of Modern Neural Networks", ICML 2017). It is biased upward: chance alone makes it larger than 0,
and the more so, the fewer images a bin has (Kumar et al., "Verified Uncertainty Calibration",
NeurIPS 2019).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_BINS = 15


class ImageScores(NamedTuple):
    """Scores of n images.

    Attributes
    ----------
    log_loss : ndarray of shape (n,)
    brier : ndarray of shape (n,)
    rank : ndarray of shape (n,), dtype int
        1 if the answer is right.
    """

    log_loss: NDArray[np.float64]
    brier: NDArray[np.float64]
    rank: NDArray[np.int64]


def image_scores(log_proba: ArrayLike, columns: ArrayLike) -> ImageScores:
    """Score the answers for images whose true classes are known.

    Parameters
    ----------
    log_proba : array-like of shape (n, K)
        Log posteriors, as ``predict_log_proba`` returns them.
    columns : array-like of shape (n,), dtype int
        Column of each image's true class.

    Returns
    -------
    ImageScores

    Examples
    --------
    >>> scores = image_scores(np.log([[0.5, 0.25, 0.25]]), [1])
    >>> scores.rank.tolist(), scores.brier.tolist(), scores.log_loss.round(3).tolist()
    ([2], [0.875], [1.386])
    """
    rows, columns = np.asarray(log_proba, dtype=float), np.asarray(columns, dtype=int)
    images = np.arange(len(rows))
    proba = np.exp(rows)
    right = np.zeros_like(proba)
    right[images, columns] = 1
    order = np.argsort(-rows, axis=1, kind="stable")
    rank = 1 + (order == columns[:, None]).argmax(1) if len(rows) else columns
    return ImageScores(-rows[images, columns], ((proba - right) ** 2).sum(1), rank)


def calibration_error(confidence: ArrayLike, right: ArrayLike, n_bins: int = N_BINS) -> float:
    """Compute the expected calibration error, over bins of equal width.

    It is biased upward in small samples: with true probabilities it is above 0 too.

    Parameters
    ----------
    confidence : array-like of shape (n,)
        Probability of each answer.
    right : array-like of shape (n,), dtype bool
        Whether it is right.
    n_bins : int, default=15
        Number of bins between 0 and 1.

    Returns
    -------
    float

    Examples
    --------
    >>> round(calibration_error([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 3)
    0.1
    """
    sure, hits = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    bins = np.minimum((sure * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=sure - hits, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(hits))


def count_answers(true: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count the answers to each class: the confusion matrix.

    Parameters
    ----------
    true, predicted : array-like of shape (n,), dtype int
        Columns of the true and of the predicted classes.
    n_classes : int

    Returns
    -------
    ndarray of shape (n_classes, n_classes)
        Row: true class; column: predicted class.

    Examples
    --------
    >>> count_answers([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(true, dtype=int), np.asarray(predicted, dtype=int)), 1)
    return counts
