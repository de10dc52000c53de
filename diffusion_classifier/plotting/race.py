r"""RaceDisplay: how the race of one image went.

After r rounds, class k is behind the winner w by the mean of their paired differences, over the
draws so far,

    gap_kr = mean_j (c_wj - c_kj) / T,        in nats: the log-odds of k against w,

where c_kj is the contribution of draw j (:mod:`diffusion_classifier.scoring.class_losses`) and T
the temperature, without an image's own doubt. Its
95 % interval is Student's, from the means over rounds, which are independent. It is the interval
at one moment. The pruner looks many times, and so has a test of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from ..classifier import DiffusionClassifier
from ..errors import InputValueError
from ..records.table import ErrorTable
from ..utils.constraints import Integers, check
from .raced import raced
from .style import BLACK, GREY, as_label, legend_beside, look, new_axes, plural


@dataclass(eq=False)
class RaceDisplay:
    """One image's race: how far each class was behind the winner, and where it was dropped.

    Make it with ``from_table`` or ``from_estimator``.

    Attributes
    ----------
    labels : list of length K
        Class labels: the winner, then those that stayed longest, then by their losses.
    evaluations : ndarray of shape (R,)
        Network rows that the race had taken after each round.
    gap : ndarray of shape (K, R)
        Log-odds of each class against the winner after each round, in nats; NaN after it was
        dropped.
    half_width : ndarray of shape (K, R)
        Half of the 95 % interval of ``gap``; NaN after a single round.
    dropped : ndarray of shape (K,), dtype bool
        Whether a class was dropped.
    ax_ : matplotlib.axes.Axes
        Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Set by ``plot``.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.plotting import RaceDisplay
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["three", "five", "eight"])
    >>> display = RaceDisplay.from_estimator(clf, load_scenes("test", n_samples=1).images)
    >>> display.ax_.get_xlabel()
    'evaluations'
    """

    labels: list[Any]
    evaluations: NDArray[np.int64]
    gap: NDArray[np.float64]
    half_width: NDArray[np.float64]
    dropped: NDArray[np.bool_]
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)

    @classmethod
    def from_estimator(
        cls, clf: DiffusionClassifier, X: Any, *, image: int = 0, **options: Any
    ) -> Self:
        """Race one image, and draw its race.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        X : images of length n
            See ``DiffusionClassifier.predict``. All of them race.
        image : int, default=0
            Which of them to draw.
        **options
            Of ``plot``.

        Returns
        -------
        RaceDisplay

        Raises
        ------
        InputError, NetworkError
            As ``DiffusionClassifier.errors`` raises them.
        """
        return cls.from_table(clf.errors(X), image=image, **options)

    @classmethod
    def from_table(cls, table: ErrorTable, *, image: int = 0, **options: Any) -> Self:
        """Draw the race of one image of a table.

        Parameters
        ----------
        table : ErrorTable
            As the race left it: ``clf.errors(X)``, or a full table's ``replay``.
        image : int, default=0
            Index of the image.
        **options
            Of ``plot``.

        Returns
        -------
        RaceDisplay

        Raises
        ------
        InputValueError
            If there is no such image, it was skipped, or it has a single candidate.
        """
        check("image", image, Integers(0, len(table) - 1))
        race = raced(table, image)
        if race is None:
            reason = dict(table.skipped).get(image, "It has a single candidate.")
            raise InputValueError(f"image {image} has no race to draw. {reason}")
        order = race.losses.argsort(stable=True)
        n_draws = (~race.contributions.isnan()).sum(1)
        rivals = order[1:][n_draws[order[1:]].argsort(stable=True, descending=True)]
        order = torch.cat([order[:1], rivals])
        contributions = race.contributions[order]
        round_of = torch.as_tensor(table.round_of[: race.n_draws])
        gap, half_width = _running_means(
            (contributions[0] - contributions) / race.temperature, round_of
        )
        ends = round_of.bincount().cumsum(0) - 1
        spent = (~np.isnan(table.errors[image, :, : race.n_draws])).sum(0).cumsum()
        display = cls(
            labels=table.classes[race.classes[order].numpy()].tolist(),
            evaluations=spent[ends.numpy()],
            gap=gap,
            half_width=half_width,
            dropped=~race.stays[order].numpy(),
        )
        return display.plot(**options)

    def plot(self, ax: Any = None, *, n_labels: int = 4) -> Self:
        """Draw the race.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.
        n_labels : int, default=4
            Number of rivals that are named: those that stayed longest. The interval of the first
            is drawn all along, those of the others at their ends. Further classes are grey.

        Returns
        -------
        RaceDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        check("n_labels", n_labels, Integers(0, 6))
        ax = new_axes(ax)
        named = slice(1, 1 + n_labels)
        rest = self.gap[1 + n_labels :]
        ax.axhline(0, color=BLACK, linewidth=1.5, label=f"{as_label(self.labels[0])} (winner)")
        beside = _beside(np.isfinite(self.gap[named]).sum(1)) * 0.02 * self.evaluations[-1]
        for number, gap in enumerate(self.gap[named]):
            self._draw_rival(ax, number, gap, beside[number])
        if len(rest):
            self._draw_rest(ax, rest)
        low, high = self._limits(named if n_labels else slice(1, None))
        room = 0.08 * (high - low)
        ax.set(
            xlabel="evaluations",
            ylabel=f"log-odds against {as_label(self.labels[0])} (nats)",
            xlim=(0, 1.03 * self.evaluations[-1] + max(beside, default=0)),
            ylim=(low - room, high + room),
        )
        legend_beside(ax, "band, bars: 95 % intervals")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_rival(self, ax: Any, number: int, gap: NDArray[np.float64], beside: float) -> None:
        """Draw one named rival's line, its end and its interval there; all along for the first.

        The end is drawn ``beside`` evaluations to the right, for lines that end together.
        """
        rank, style = 1 + number, look(number)
        taken = np.isfinite(gap)
        x, y, half = self.evaluations[taken], gap[taken], self.half_width[rank][taken]
        end = "still in at the end"
        if self.dropped[rank]:
            end = f"dropped at {x[-1]:,}"
        label = f"{as_label(self.labels[rank])}, {end}"
        ax.plot(x, y, color=style["color"], linestyle=style["linestyle"], label=label)
        if number == 0:
            ax.fill_between(x, y - half, y + half, color=style["color"], alpha=0.15, linewidth=0)
        marker = "X" if self.dropped[rank] else "o"
        bar = {"color": style["color"], "capsize": 3, "markersize": 7, "markeredgecolor": "white"}
        ax.errorbar(x[-1:] + beside, y[-1:], half[-1:], fmt=marker, **bar)

    def _draw_rest(self, ax: Any, rest: NDArray[np.float64]) -> None:
        """Draw the lines of all other classes in grey, as one artist."""
        from matplotlib.collections import LineCollection

        paths = [
            np.column_stack([self.evaluations, gap])[np.isfinite(gap)]
            for gap in rest
            if np.isfinite(gap).any()
        ]
        label = plural(len(rest), "other class", "other classes")
        ax.add_collection(LineCollection(paths, colors=GREY, linewidths=0.6, zorder=1, label=label))
        ends = np.array([path[-1] for path in paths])
        ax.plot(*ends.T, "x", color=GREY, markersize=3, zorder=1)

    def _limits(self, shown: slice) -> tuple[float, float]:
        """Return the range of log-odds to show: 0, these classes but for the first rounds of long
        races, and their intervals at the end.
        """
        gap, half = self.gap[shown], self.half_width[shown]
        skip = min(gap.shape[1] // 10, 3)
        last = np.isfinite(gap).sum(1, keepdims=True) - 1
        ends = [np.take_along_axis(gap + side * half, last, 1)[:, 0] for side in (-1, 1)]
        values = np.concatenate([gap[:, skip:].ravel(), *ends, [0.0]])
        values = values[np.isfinite(values)]
        low, high = float(values.min()), float(values.max())
        return (low, high) if high > low else (-1.0, 1.0)


def _beside(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count for each line those before it that end in the same round.

    Examples
    --------
    >>> _beside(np.array([9, 9, 4, 9])).tolist()
    [0, 1, 0, 2]
    """
    return np.array([(ends[:number] == end).sum() for number, end in enumerate(ends)], int)


def _running_means(
    values: torch.Tensor, round_of: torch.Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means of values [K, n] after each round [K, R], and half of their 95 % intervals."""
    sizes = round_of.bincount().double()
    sums = values.new_zeros(len(values), len(sizes)).index_add(1, round_of, values)
    n, rounds = sizes.cumsum(0), torch.arange(1, 1 + len(sizes))
    mean = sums.cumsum(1) / n
    # sum over rounds of (sum of the round - its size * mean)^2, expanded
    squares = (sums**2).cumsum(1) - 2 * mean * (sums * sizes).cumsum(1)
    squares = (squares + mean**2 * (sizes**2).cumsum(0)).clamp(min=0)
    error = (squares * rounds / (rounds - 1)).sqrt() / n  # NaN after a single round
    return mean.numpy(), error.numpy() * student.ppf(0.975, np.maximum(rounds.numpy() - 1, 1))
