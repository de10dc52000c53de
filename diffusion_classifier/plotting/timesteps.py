r"""ErrorByTimestepDisplay: at which timesteps a model tells classes apart.

At timestep t, the evidence for class a over class b is the paired difference of weighted errors,

    e(t) = w(t) (err_b - err_a) / T,     mean over t of e(t) = (L_b - L_a) / T without priors,

in nats. The mean over images and draws is taken in bins of t. Draws are shared by images, so that
values vary with the image and with the draw. The 95 % interval counts both (Cameron, Gelbach and
Miller, "Robust inference with multiway clustering", 2011): V = V_image + V_draw - V_cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..classifier import DiffusionClassifier
from ..errors import InputValueError
from ..records.table import ErrorTable
from ..utils.constraints import Integers, check
from ..utils.display import short_repr
from ..utils.validation import check_option
from .answers import check_labels
from .raced import raced
from .style import BLACK, GREY, as_label, legend_beside, look, new_axes, plural

Axis = Literal["timestep", "log_snr"]
MOST_NAMED = 6


@dataclass(eq=False)
class ErrorByTimestepDisplay:
    """Evidence for one class over another, by timestep or log-SNR.

    Make it with ``from_table`` or ``from_estimator``.

    Attributes
    ----------
    names : list of str of length L
        What each line compares.
    timesteps : ndarray of shape (B,)
        Centres of the bins.
    log_snr : ndarray of shape (B,)
        Log-SNR there.
    evidence : ndarray of shape (L, B)
        Mean evidence in each bin, in nats; NaN in bins without draws.
    half_width : ndarray of shape (L, B)
        Half of the 95 % interval of ``evidence``; NaN where a bin holds a single value.
    ax_ : matplotlib.axes.Axes
        Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Set by ``plot``.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.plotting import ErrorByTimestepDisplay
    >>> from diffusion_classifier.pruners import NoPruning
    >>> clf = DiffusionClassifier(pruner=NoPruning(8), random_state=0).fit(None, ["red", "blue"])
    >>> images = load_scenes("test", n_samples=2).images
    >>> display = ErrorByTimestepDisplay.from_estimator(clf, images, pairs=[("red", "blue")])
    >>> display.names
    ['red over blue']
    """

    names: list[str]
    timesteps: NDArray[np.float64]
    log_snr: NDArray[np.float64]
    evidence: NDArray[np.float64]
    half_width: NDArray[np.float64]
    ax_: Any = field(default=None, init=False, repr=False)
    figure_: Any = field(default=None, init=False, repr=False)

    @classmethod
    def from_estimator(
        cls, clf: DiffusionClassifier, X: Any, y: Any = None, **options: Any
    ) -> Self:
        """Evaluate every class on every draw, without pruning, and draw the evidence.

        Parameters
        ----------
        clf : DiffusionClassifier
            Fitted.
        X : images of length n
            See ``DiffusionClassifier.predict``.
        y : array-like of shape (n,), optional
            True labels.
        **options
            Of ``from_table``.

        Returns
        -------
        ErrorByTimestepDisplay

        Raises
        ------
        InputError, NetworkError
            As ``DiffusionClassifier.errors`` and ``from_table`` raise them.
        """
        return cls.from_table(clf.errors(X, full=True), y, **options)

    @classmethod
    def from_table(
        cls,
        table: ErrorTable,
        y: Any = None,
        *,
        pairs: Sequence[tuple[Any, Any]] | None = None,
        n_bins: int = 20,
        **options: Any,
    ) -> Self:
        """Draw the evidence of a table.

        Parameters
        ----------
        table : ErrorTable
            Best a full one, ``clf.errors(X, full=True)``: in a pruned one, late draws come from
            images that were hard to decide.
        y : array-like of shape (n,), optional
            True labels. The lines are then the true class over its closest rival (the one with
            the smallest loss), and over the mean of all rivals if the table is full. Without y,
            the line is each image's answer over its runner-up.
        pairs : sequence of (a, b), optional
            One line for each pair of classes instead: a over b, on the images of class a if y is
            given, and else on all images.
        n_bins : int, default=20
            Bins of equal width in t.
        **options
            Of ``plot``.

        Returns
        -------
        ErrorByTimestepDisplay

        Raises
        ------
        InputValueError
            If y does not fit the table, holds a label that is not one of its classes, or a pair
            names another class or has no images.
        """
        check("n_bins", n_bins, Integers(1, table.schedule.n_timesteps))
        truth = None if y is None else _columns(table, check_labels(y, len(table)), "y")
        lines = _pair_lines(table, truth, pairs) if pairs else _rival_lines(table, truth)
        edges = np.linspace(0, table.schedule.n_timesteps, n_bins + 1)
        bins = np.searchsorted(edges, table.timesteps, side="right") - 1
        means = [_binned(values, bins, n_bins, 1 / table.density) for values in lines.values()]
        centres = (edges[1:] + edges[:-1] - 1) / 2
        log_snr = table.schedule.log_snr.numpy()
        display = cls(
            names=list(lines),
            timesteps=centres,
            log_snr=np.interp(centres, np.arange(len(log_snr)), log_snr),
            evidence=np.stack([mean for mean, _ in means]),
            half_width=1.96 * np.stack([error for _, error in means]),
        )
        return display.plot(**options)

    def plot(self, ax: Any = None, *, x: Axis = "timestep") -> Self:
        """Draw the evidence.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            By default those of a new figure.
        x : {"timestep", "log_snr"}, default="timestep"
            Horizontal axis. Noise grows to the right on both.

        Returns
        -------
        ErrorByTimestepDisplay
            The display itself, with ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        by_time = check_option("x", x, ("timestep", "log_snr")) == "timestep"
        ax = new_axes(ax)
        places = self.timesteps if by_time else self.log_snr
        ax.axhline(0, color=BLACK, linewidth=0.8)
        rows = zip(self.names, self.evidence, self.half_width, strict=True)
        for number, (name, mean, half) in enumerate(rows):
            known = np.isfinite(mean) & np.isfinite(places)
            at, mean, half = places[known], mean[known], half[known]
            if number >= MOST_NAMED:
                rest = plural(len(self.names) - MOST_NAMED, "other pair", "other pairs")
                label = rest if number == MOST_NAMED else None
                ax.plot(at, mean, color=GREY, linewidth=0.6, zorder=1, label=label)
                continue
            ax.plot(at, mean, **look(number), markersize=4, label=name)
            color = look(number)["color"]
            ax.fill_between(at, mean - half, mean + half, color=color, alpha=0.15, linewidth=0)
        ax.set(xlabel="timestep" if by_time else "log-SNR", ylabel="evidence (nats)")
        if not by_time:
            ax.invert_xaxis()
        legend_beside(ax, "band: 95 % interval")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _columns(table: ErrorTable, labels: Any, name: str) -> NDArray[np.int64]:
    """Return the place of each label among the table's classes."""
    places = {label: column for column, label in enumerate(table.classes.tolist())}
    plain = np.asarray(labels).tolist()
    for number, label in enumerate(plain):
        if label not in places:
            raise InputValueError(
                f"{name}[{number}]={short_repr(label)} is not a class of the table; its classes "
                f"are {short_repr(table.classes.tolist())}."
            )
    return np.array([places[label] for label in plain], int)


def _evidence(table: ErrorTable, image: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return w err / T of each class [K, J], and the class losses [K]; NaN where none raced."""
    values = np.full((len(table.classes), len(table.timesteps)), np.nan)
    losses = np.full(len(table.classes), np.nan)
    race = raced(table, image)
    if race is not None:
        classes, n = race.classes.numpy(), race.n_draws
        prior = race.temperature * race.scoring.log_prior[:, None]
        weighted = (race.contributions + prior).numpy() * table.density[:n]
        values[classes, :n] = weighted / race.temperature
        losses[classes] = race.losses.numpy()
    return values, losses


def _rival_lines(
    table: ErrorTable, truth: NDArray[np.int64] | None
) -> dict[str, NDArray[np.float64]]:
    """Return the evidence [N, J] for the true class, or the answer, over its rivals."""
    shape = (len(table), len(table.timesteps))
    closest, mean = np.full(shape, np.nan), np.full(shape, np.nan)
    for image in range(len(table)):
        values, losses = _evidence(table, image)
        if np.isnan(losses).all():
            continue
        own = int(np.nanargmin(losses)) if truth is None else int(truth[image])
        losses[own] = np.nan
        rivals = np.flatnonzero(~np.isnan(losses))
        if len(rivals):
            closest[image] = values[np.nanargmin(losses)] - values[own]
            mean[image] = values[rivals].mean(0) - values[own]
    if np.isnan(closest).all():
        raise InputValueError("no image of the table raced the true class against a rival.")
    if truth is None:
        return {"answer over its runner-up": closest}
    lines = {"true class over its closest rival": closest}
    if table.is_full and len(table.classes) > 2:
        lines["true class over the mean rival"] = mean
    return lines


def _pair_lines(
    table: ErrorTable, truth: NDArray[np.int64] | None, pairs: Sequence[tuple[Any, Any]]
) -> dict[str, NDArray[np.float64]]:
    """Return the evidence [n, J] for the first class of each pair over the second."""
    values = np.stack([_evidence(table, image)[0] for image in range(len(table))])
    lines = {}
    for number, pair in enumerate(pairs):
        a, b = _columns(table, list(pair), f"pairs[{number}]")
        chosen = np.ones(len(table), bool) if truth is None else truth == a
        found = values[chosen, b] - values[chosen, a]
        if np.isnan(found).all():
            raise InputValueError(
                f"pairs[{number}]={short_repr(pair)}: no image "
                + ("raced both." if truth is None else f"of {short_repr(pair[0])} raced both.")
            )
        lines[" over ".join(map(as_label, pair))] = found
    return lines


def _binned(
    values: NDArray[np.float64], bins: NDArray[np.int64], n_bins: int, weights: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [B] and standard error [B] of values [N, J] in bins of their draws."""
    means, errors = np.full(n_bins, np.nan), np.full(n_bins, np.nan)
    for number in range(n_bins):
        inside = bins == number
        cells = values[:, inside]
        w = np.where(np.isnan(cells), 0.0, weights[inside])
        if not w.sum():
            continue
        means[number] = (w * np.nan_to_num(cells)).sum() / w.sum()
        excess = w * np.nan_to_num(cells - means[number]) / w.sum()
        by_image, by_draw = (_clustered(excess.sum(i), int(w.any(i).sum())) for i in (1, 0))
        both = by_image + by_draw - _clustered(excess, int((w > 0).sum()))
        variance = max(both, by_image, by_draw)
        errors[number] = np.sqrt(variance) if variance else np.nan
    return means, errors


def _clustered(excess: NDArray[np.float64], n: int) -> float:
    """Return the variance of a mean from what each of n clusters adds to its error; 0 for one."""
    return float((excess**2).sum() * n / (n - 1)) if n > 1 else 0.0
