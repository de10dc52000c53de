"""CostAccuracyDisplay: what a pruner costs, and how often it is right.

All pruners race on the same recorded errors. The line they are compared with is that of fewer
draws without pruning: the first 1, 2, 4, ... rounds of every class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from ..classifier import DiffusionClassifier
from ..errors import InputValueError
from ..pruners import NoPruning, PairedTestPruner, Pruner, RacingPruner, StagedPruner
from ..records.table import ErrorTable
from .answers import answers_of, check_labels, share
from .style import GREY, as_label, legend_beside, look, new_axes


@dataclass(eq=False)
class CostAccuracyDisplay:
    """Accuracy against evaluations per image, with 95 % intervals.

    Make it with ``from_table`` or ``from_estimator``, or from figures of your own.

    Attributes
    ----------
    names : list of str of length M
        What is compared.
    evaluations : ndarray of shape (M, 3)
        Mean evaluations per image, and the ends of its interval.
    accuracy : ndarray of shape (M, 3)
        Accuracy, and the ends of its interval, as shares.
    unpruned : ndarray of shape (B, 4), optional
        Without pruning, for growing numbers of draws: evaluations per image, accuracy and the ends
        of its interval.
    ax_ : matplotlib.axes.Axes
        Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Set by ``plot``.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.plotting import CostAccuracyDisplay
    >>> from diffusion_classifier.pruners import NoPruning, RacingPruner
    >>> scenes = load_scenes("test", n_samples=4)
    >>> clf = DiffusionClassifier(pruner=NoPruning(16), random_state=0)
    >>> clf = clf.fit(None, ["red", "green", "blue", "yellow", "purple", "white", "black"])
    >>> display = CostAccuracyDisplay.from_estimator(
    ...     clf, scenes.images, scenes.color, pruners={"racing": RacingPruner()})
    >>> display.names, display.unpruned[:, 0].tolist()
    (['racing'], [14.0, 28.0, 56.0, 112.0])
    """

    names: list[str]
    evaluations: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    unpruned: NDArray[np.float64] | None = None
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)

    @classmethod
    def from_estimator(
        cls,
        clf: DiffusionClassifier,
        X: Any,
        y: Any,
        *,
        pruners: Mapping[str, Pruner] | None = None,
        **options: Any,
    ) -> Self:
        """Evaluate every class on every draw, and race the pruners on these errors.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        X : images of length n
            See ``DiffusionClassifier.predict``.
        y : array-like of shape (n,)
            True labels.
        pruners : mapping of str to Pruner, optional
            Name and pruner of each race; see ``from_table``.
        **options
            Of ``plot``.

        Returns
        -------
        CostAccuracyDisplay

        Raises
        ------
        InputError, NetworkError
            As ``DiffusionClassifier.errors`` and ``from_table`` raise them.
        """
        return cls.from_table(clf.errors(X, full=True), y, pruners=pruners, **options)

    @classmethod
    def from_table(
        cls,
        table: ErrorTable,
        y: Any,
        *,
        pruners: Mapping[str, Pruner] | None = None,
        **options: Any,
    ) -> Self:
        """Race pruners on the errors of a table.

        Parameters
        ----------
        table : ErrorTable
            A full one: ``clf.errors(X, full=True)``.
        y : array-like of shape (n,)
            True labels.
        pruners : mapping of str to Pruner, optional
            Name and pruner of each race. By default the staged, paired and racing pruners with
            their defaults. A pruner that learns must have learned from other images.
        **options
            Of ``plot``.

        Returns
        -------
        CostAccuracyDisplay

        Raises
        ------
        InputValueError
            If the table is not full, or y does not fit it.
        """
        labels = check_labels(y, len(table))
        kept = np.setdiff1d(np.arange(len(table)), [image for image, _ in table.skipped])
        table, labels = table[kept], labels[kept]
        if not table.is_full:
            raise InputValueError(
                "the table was pruned, so that other pruners cannot race on it; record it with "
                "clf.errors(X, full=True)."
            )
        if pruners is None:
            pruners = {
                "staged": StagedPruner(),
                "paired": PairedTestPruner(),
                "racing": RacingPruner(),
            }
        figures = [_figures(table.replay(pruner), labels) for pruner in pruners.values()]
        ends = np.bincount(table.round_of).cumsum()
        budgets = sorted({int(ends[r - 1]) for r in _doublings(len(ends))})
        unpruned = []
        for n_draws in budgets:
            evaluations, accuracy = _figures(table.replay(NoPruning(n_draws)), labels)
            unpruned.append([evaluations[0], *accuracy])
        display = cls(
            names=list(pruners),
            evaluations=np.array([evaluations for evaluations, _ in figures]).reshape(-1, 3),
            accuracy=np.array([accuracy for _, accuracy in figures]).reshape(-1, 3),
            unpruned=np.array(unpruned),
        )
        return display.plot(**options)

    def plot(self, ax: Any = None) -> Self:
        """Draw accuracy against evaluations.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.

        Returns
        -------
        CostAccuracyDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(ax)
        if self.unpruned is not None:
            x, y, low, high = (100 * self.unpruned / [100, 1, 1, 1]).T
            ax.plot(x, y, color=GREY, label="no pruning, fewer draws")
            ax.fill_between(x, low, high, color=GREY, alpha=0.2, linewidth=0)
        rows = zip(self.names, self.evaluations, 100 * self.accuracy, strict=True)
        for number, (name, spent, right) in enumerate(rows):
            style = look(number) | {"linestyle": "none"}
            bars = {"xerr": _arms(spent), "yerr": _arms(right), "capsize": 3}
            ax.errorbar(spent[0], right[0], **bars, **style, label=as_label(name))
        ax.set(xscale="log", xlabel="evaluations per image", ylabel="accuracy (%)")
        _plain_ticks(ax)
        legend_beside(ax, "bars, band: 95 % intervals")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _figures(
    raced: ErrorTable, labels: NDArray[Any]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return evaluations per image and accuracy of a race, with their intervals."""
    spent, n = raced.n_evaluations, len(raced)
    half = 0.0
    if n > 1:
        half = float(student.ppf(0.975, n - 1) * spent.std(ddof=1) / np.sqrt(n))
    mean = float(spent.mean())
    answers = answers_of(raced, labels)
    return (mean, max(mean - half, 1.0), mean + half), share(answers.predicted == answers.y)


def _doublings(n: int) -> list[int]:
    """Return 1, 2, 4, ... below n, and n."""
    return [*(2**power for power in range(n.bit_length()) if 2**power < n), n]


def _arms(figure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of an error bar, [2, 1], from a figure and the ends of its interval."""
    value, low, high = figure
    return np.array([[value - low], [high - value]]).clip(min=0)


def _plain_ticks(ax: Any) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, a few per decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
