"""ConfusionDisplay: scikit-learn's confusion matrix, readable with many classes too.

The classes that are confused most often are shown one by one, and the others as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from ..classifier import DiffusionClassifier
from ..records.table import ErrorTable
from ..utils.constraints import Integers, check
from .answers import answers_of
from .style import as_label, new_axes, plural

_MOST_WITH_COUNTS = 12  # classes; beyond, counts do not fit into cells


class ConfusionDisplay(ConfusionMatrixDisplay):
    """Confusion matrix of a classifier's answers, through scikit-learn's own display.

    ``from_predictions`` and ``plot`` are scikit-learn's.

    Parameters
    ----------
    confusion_matrix : ndarray of shape (n, n)
        Row: true class; column: predicted class.
    display_labels : list of str of length n, optional
        Their labels.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.plotting import ConfusionDisplay
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["red digit", "white digit"])
    >>> images = load_scenes("test", n_samples=2).images
    >>> display = ConfusionDisplay.from_estimator(clf, images, ["red digit", "white digit"])
    >>> display.confusion_matrix.sum().item()
    2
    """

    @classmethod
    def from_estimator(cls, clf: DiffusionClassifier, X: Any, y: Any, **options: Any) -> Self:
        """Predict images, and draw which classes are confused.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        X : images of length n
            See ``DiffusionClassifier.predict``.
        y : array-like of shape (n,)
            True labels.
        **options
            Of ``from_table``.

        Returns
        -------
        ConfusionDisplay

        Raises
        ------
        InputError, NetworkError
            As ``DiffusionClassifier.errors`` raises them.
        """
        return cls.from_table(clf.errors(X), y, **options)

    @classmethod
    def from_table(
        cls, table: ErrorTable, y: Any, *, max_classes: int = 20, **options: Any
    ) -> Self:
        """Draw which classes a table's answers confuse; skipped images are left out.

        Parameters
        ----------
        table : ErrorTable
        y : array-like of shape (n,)
            True labels. Labels that are not among the table's classes have rows of their own.
        max_classes : int, default=20
            Most classes with a row and column of their own: those with most wrong answers, in the
            order of the labels. The others share the last row and column.
        **options
            Of scikit-learn's ``plot``, such as ``ax``, ``cmap`` or ``include_values``.

        Returns
        -------
        ConfusionDisplay

        Raises
        ------
        InputValueError
            If y does not fit the table, or all images were skipped.
        """
        answers = answers_of(table, y)
        labels = np.unique(np.concatenate([table.classes, answers.y]))
        counts = confusion_matrix(answers.y, answers.predicted, labels=labels)
        return cls.from_counts(counts, labels.tolist(), max_classes=max_classes, **options)

    @classmethod
    def from_counts(
        cls, counts: ArrayLike, labels: Sequence[Any], *, max_classes: int = 20, **options: Any
    ) -> Self:
        """Draw a confusion matrix.

        Parameters
        ----------
        counts : array-like of shape (K, K), dtype int
            Row: true class; column: predicted class.
        labels : sequence of length K
        max_classes : int, default=20
            As in ``from_table``.
        **options
            Of scikit-learn's ``plot``.

        Returns
        -------
        ConfusionDisplay
        """
        check("max_classes", max_classes, Integers(1))
        counts, names = np.asarray(counts), [as_label(label) for label in labels]
        if len(names) > max_classes:
            counts, names = _grouped(counts, names, max_classes)
        shown = {"include_values": len(names) <= _MOST_WITH_COUNTS, "cmap": "cividis"}
        if max(map(len, names)) * len(names) > 40:
            shown["xticks_rotation"] = "vertical"
        size = 4.0 + 0.18 * len(names)
        ax = new_axes(options.pop("ax", None), (1.15 * size, size))
        display = cls(counts, display_labels=names).plot(**shown | options, ax=ax)
        _count_in_integers(display.im_.colorbar)
        return display


def _grouped(counts: Any, names: list[str], most: int) -> tuple[Any, list[str]]:
    """Keep the classes with most wrong answers, and add up the others in a last row and column."""
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    kept = np.sort(np.lexsort([-counts.diagonal(), -wrong])[:most])
    place = np.full(len(counts), most)
    place[kept] = np.arange(most)
    sums = np.zeros((most + 1, most + 1), counts.dtype)
    np.add.at(sums, (place[:, None], place[None]), counts)
    rest = plural(len(names) - most, "other class", "other classes")
    return sums, [*(names[column] for column in kept), rest]


def _count_in_integers(colorbar: Any) -> None:
    """Let the ticks of a colour bar be integers; without a bar, nothing happens."""
    from matplotlib.ticker import MaxNLocator

    if colorbar is not None:
        colorbar.locator = MaxNLocator(integer=True)
        colorbar.update_ticks()
