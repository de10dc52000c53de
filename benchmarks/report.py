"""Functions shared by the benchmarks: intervals, calibration error and tables."""

from __future__ import annotations

import shlex
import sys

import numpy as np

from diffusion_classifier.evaluation.metrics import N_BINS, image_scores
from diffusion_classifier.evaluation.metrics import calibration_error as calibration_error
from diffusion_classifier.utils.intervals import N_RESAMPLES, bootstrap

BOOTSTRAP = N_RESAMPLES
BINS = N_BINS  # of the calibration error


def probability_figures(log_proba, columns):
    """Compute log-loss, Brier score, confidence and correctness of each image."""
    proba, scores = np.exp(log_proba), image_scores(log_proba, columns)
    return {
        "log_loss": scores.log_loss,
        "brier": scores.brier,
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
    return list(bootstrap(figure, *columns, clusters=clusters, seed=seed))


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
