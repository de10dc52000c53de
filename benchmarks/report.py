"""Functions shared by the benchmarks: intervals, calibration error and tables."""

from __future__ import annotations

import shlex
import sys

import numpy as np

BOOTSTRAP = 1000  # number of resamples
BINS = 15  # number of bins of the calibration error


def calibration_error(confidence, right):
    """Compute the expected calibration error over BINS bins of equal width."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return np.abs(gaps).sum() / len(right)


def probability_figures(log_proba, columns):
    """Compute log-loss, Brier score, confidence and correctness of each image."""
    proba = np.exp(log_proba)
    hot = np.eye(proba.shape[1])[columns]
    return {
        "log_loss": -log_proba[np.arange(len(columns)), columns],
        "brier": ((proba - hot) ** 2).sum(1),
        "confidence": proba.max(1),
        "right": proba.argmax(1) == columns,
    }


def interval(figure, *columns, clusters=None, seed=0):
    """Compute a figure and its 95 % bootstrap interval, over rows or whole clusters.

    Parameters
    ----------
    figure : callable
        ``figure(*columns)`` returns a number.
    *columns : array-like of shape (n,)
    clusters : array-like of shape (n,), optional
        Cluster of each row; whole clusters are resampled. By default single rows.
    seed : int, default=0

    Returns
    -------
    list of float
        The figure, and the interval's lower and upper end.
    """
    rng = np.random.default_rng(seed)
    columns = [np.asarray(column) for column in columns]
    n = len(columns[0])
    labels = np.arange(n) if clusters is None else np.asarray(clusters)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    values = []
    for _ in range(BOOTSTRAP):
        picks = rng.integers(len(members), size=len(members))
        rows = np.concatenate([members[pick] for pick in picks]) if clusters is not None else picks
        values.append(figure(*(column[rows] for column in columns)))
    return [float(figure(*columns)), *np.quantile(values, [0.025, 0.975]).tolist()]


def as_text(value, form):
    """Format a figure, with its interval if any; a form that starts with 1/ shows the inverse."""
    if form.startswith("1/"):
        return form.format(1 / value)
    if isinstance(value, int | float):
        return form.format(value)
    return "{} ({} to {})".format(*map(form.format, value))


def as_table(keys, columns, rows):
    """Format rows ``{key(s): figures}`` as Markdown; columns are ``{title: (figure, form)}``."""
    lines = ["| " + " | ".join([*keys, *columns]) + " |", "|" + "---|" * (len(keys) + len(columns))]
    for key, row in rows.items():
        names = key if isinstance(key, tuple) else (key,)
        cells = [as_text(row[figure], form) for figure, form in columns.values()]
        lines.append("| " + " | ".join([*names, *cells]) + " |")
    return lines


def write_page(path, text, argv):
    """Write and print a page, with the command that made it at the end."""
    text += "\n" + f"`{shlex.join(['python', sys.argv[0], *argv])}`" + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)
