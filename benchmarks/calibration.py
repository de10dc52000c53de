"""Measure how temperature calibration improves the probabilities of raced predictions.

The task is hard: 20 mixture classes, with an accuracy of about 70 %. Temperature and racing
variance are learned from 100 rows. Writes docs/benchmarks/calibration.md:

    python benchmarks/calibration.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from promise import MIXTURE_DRAWS, MIXTURE_SAMPLER, K, make_mixture
from report import (
    BINS,
    as_table,
    calibration_error,
    interval,
    probability_figures,
    write_page,
)

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.pruners import RacingPruner

N_FIT, N_JOBS = 100, 2
CALIBRATORS = (None, "temperature", "temperature-draws")


def measure(weighting, calibrator, n_rows):
    """Compute the probability figures of the held-out rows."""
    backend, X, y = make_mixture(N_FIT + n_rows)
    clf = DiffusionClassifier(
        backend,
        weighting=weighting,
        sampler=MIXTURE_SAMPLER,
        pruner=RacingPruner(max_draws=MIXTURE_DRAWS, learn_profile=True),
        calibrator=calibrator,
        n_fit_images=N_FIT,
        random_state=0,
    )
    clf.fit(X[:N_FIT], y[:N_FIT])
    # Use logarithms: with likelihood weights, probabilities can underflow.
    return probability_figures(clf.predict_log_proba(X[N_FIT:]), y[N_FIT:])


def summarise(own, plain):
    """Compute figures with intervals, and their change against no calibration."""
    return {
        "accuracy": interval(np.mean, own["right"]),
        "ece": interval(calibration_error, own["confidence"], own["right"]),
        "log_loss": interval(np.mean, own["log_loss"]),
        "brier": interval(np.mean, own["brier"]),
        "log_loss_change": interval(np.mean, own["log_loss"] - plain["log_loss"]),
        "brier_change": interval(np.mean, own["brier"] - plain["brier"]),
    }


COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}"),
    "ECE": ("ece", "{:.3f}"),
    "log-loss": ("log_loss", "{:.3f}"),
    "change of log-loss": ("log_loss_change", "{:+.3f}"),
    "Brier": ("brier", "{:.3f}"),
    "change of Brier": ("brier_change", "{:+.3f}"),
}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/calibration.md"))
    args = parser.parse_args(argv)
    settings = [(w, c) for w in ("uniform", "likelihood") for c in CALIBRATORS]
    found = Parallel(N_JOBS)(delayed(measure)(*s, args.rows) for s in settings)
    parts = dict(zip(settings, found, strict=True))
    rows = {(w, str(c)): summarise(part, parts[w, None]) for (w, c), part in parts.items()}
    lines = [
        "# Calibration of raced probabilities",
        "",
        f"The {K} mixture classes of promise.md, {args.rows:,} held-out rows, racing with at most "
        f"{MIXTURE_DRAWS:,} draws; temperature and variance learned from {N_FIT} other rows. ECE "
        f"has {BINS} bins. Intervals are 95 %, bootstrapped over rows; differences are paired. One "
        "seed of the draws.",
        "",
        *as_table(("weighting", "calibrator"), COLUMNS, rows),
        "",
    ]
    write_page(args.output, "\n".join(lines), argv)


if __name__ == "__main__":
    main()
