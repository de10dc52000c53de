r"""ReliabilityDisplay: whether answers are as often right as their probabilities say.

Answers are put into bins by *confidence*, the largest probability. In each bin, accuracy is drawn
against mean confidence: calibrated probabilities lie on the diagonal. The expected calibration
error is the mean over images of the distance from it, ``ECE = sum_b n_b / n |acc_b - conf_b|``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..classifier import DiffusionClassifier
from ..errors import InputValueError
from ..records.table import ErrorTable
from ..utils.constraints import Integers, as_numbers, check
from ..utils.validation import check_option
from .answers import answers_of, check_labels, share
from .style import BLUE, GREY, new_axes

Strategy = Literal["quantile", "uniform"]


@dataclass(eq=False)
class ReliabilityDisplay:
    """Accuracy against confidence, with 95 % intervals.

    Make it with ``from_table``, ``from_estimator`` or ``from_predictions``.

    Attributes
    ----------
    confidence : ndarray of shape (B,)
        Mean confidence of the answers in each bin; bins without answers are left out.
    accuracy : ndarray of shape (B, 3)
        Share of right answers in each bin, and the ends of Wilson's interval.
    counts : ndarray of shape (B,)
        Number of answers in each bin.
    calibration_error : float
        Expected calibration error, over these bins.
    ax_ : matplotlib.axes.Axes
        Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Set by ``plot``.

    Examples
    --------
    >>> from diffusion_classifier.plotting import ReliabilityDisplay
    >>> proba = [[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]]
    >>> display = ReliabilityDisplay.from_predictions(
    ...     ["a", "a", "b", "a"], proba, ["a", "b"], strategy="uniform")
    >>> display.counts.tolist(), round(display.calibration_error, 3)
    ([2, 2], 0.15)
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]
    calibration_error: float
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)

    @classmethod
    def from_estimator(cls, clf: DiffusionClassifier, X: Any, y: Any, **options: Any) -> Self:
        """Predict images, and draw how reliable the answers are.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        X : images of length n
            See ``DiffusionClassifier.predict``.
        y : array-like of shape (n,)
            True labels.
        **options
            Of ``from_predictions``.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        InputError, NetworkError
            As ``DiffusionClassifier.errors`` and ``from_predictions`` raise them.
        """
        return cls.from_table(clf.errors(X), y, **options)

    @classmethod
    def from_table(cls, table: ErrorTable, y: Any, **options: Any) -> Self:
        """Draw how reliable the answers of a table are; skipped images are left out.

        Parameters
        ----------
        table : ErrorTable
            Its probabilities have the temperature of the classifier that made it.
        y : array-like of shape (n,)
            True labels.
        **options
            Of ``from_predictions``.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        InputValueError
            If y does not fit the table, or all images were skipped.
        """
        answers = answers_of(table, y)
        return cls.from_predictions(answers.y, answers.proba, table.classes, **options)

    @classmethod
    def from_predictions(
        cls,
        y: Any,
        proba: ArrayLike,
        classes: ArrayLike,
        *,
        n_bins: int = 10,
        strategy: Strategy = "quantile",
        **options: Any,
    ) -> Self:
        """Draw how reliable probabilities are.

        Parameters
        ----------
        y : array-like of shape (n,)
            True labels.
        proba : array-like of shape (n, K)
            Probabilities, as ``predict_proba`` returns them.
        classes : array-like of shape (K,)
            Labels of the columns.
        n_bins : int, default=10
            Number of bins.
        strategy : {"quantile", "uniform"}, default="quantile"
            Bins with the same number of answers, or of the same width in confidence.
        **options
            Of ``plot``.

        Returns
        -------
        ReliabilityDisplay

        Raises
        ------
        InputValueError
            If lengths do not fit, there are no answers, or a probability is not finite.
        """
        check("n_bins", n_bins, Integers(1))
        check_option("strategy", strategy, ("quantile", "uniform"))
        proba, names = as_numbers("proba", proba), np.asarray(classes)
        if proba.ndim != 2 or not len(proba) or proba.shape[1] != len(names):
            raise InputValueError(
                f"proba has shape {proba.shape}, but must have one row per image, at least one, "
                f"and a column for each of the {len(names)} classes."
            )
        labels = check_labels(y, len(proba))
        confidence, right = proba.max(1), names[proba.argmax(1)] == labels
        if strategy == "quantile":
            order = confidence.argsort(kind="stable")
            parts = [part for part in np.array_split(order, n_bins) if len(part)]
        else:
            places = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
            parts = [np.flatnonzero(places == place) for place in np.unique(places)]
        counts = np.array([len(part) for part in parts])
        mean = np.array([confidence[part].mean() for part in parts])
        accuracy = np.array([share(right[part]) for part in parts])
        error = float(counts @ np.abs(accuracy[:, 0] - mean) / counts.sum())
        return cls(mean, accuracy, counts, error).plot(**options)

    def plot(self, ax: Any = None) -> Self:
        """Draw accuracy against confidence.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.

        Returns
        -------
        ReliabilityDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(ax, (4.6, 4.4))
        value, low, high = 100 * self.accuracy.T
        ax.plot([0, 100], [0, 100], color=GREY, linestyle="--", label="calibrated")
        arms = np.clip([value - low, high - value], 0, None)
        n, total = len(self.counts), int(self.counts.sum())
        label = f"{total:,} answers, ECE {self.calibration_error:.3f}"
        style = {"color": BLUE, "marker": "o", "capsize": 3, "linewidth": 1 if n > 1 else 0}
        ax.errorbar(100 * self.confidence, value, arms, **style, elinewidth=1, label=label)
        ax.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 102), ylim=(0, 102))
        ax.set_aspect("equal")
        legend = {"fontsize": "small", "title_fontsize": "small", "alignment": "left"}
        ax.legend(title="bars: 95 % intervals", loc="upper left", frameon=False, **legend)
        self.ax_, self.figure_ = ax, ax.figure
        return self
