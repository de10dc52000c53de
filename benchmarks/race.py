"""Every pruner with every weighting, on the same recorded errors of the embedded model.

Records all errors of held-out scenes once (10 digits x 200 draws, about 35 minutes on 2 CPU
cores for 1,000 scenes; in chunks, so that a stopped recording goes on where it was), learns
weights, profile and temperature from 100 further scenes, and replays the race:

    python benchmarks/race.py
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.error_table import ErrorTable
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.strategies import PRUNERS, WEIGHTINGS

SEED = 0  # of the scenes, of the draws and of the bootstrap
N_FIT = 100  # scenes that strategies learn from; the others are raced
N_DRAWS = 200
CHUNK = 25  # scenes per file
BOOTSTRAP = 1000
BINS = 15


def record(n_scenes, cache):
    """Full errors of the first scenes of the test set, and their digits.

    Scenes 0 ... N_FIT - 1 are for fitting.
    """
    scenes = load_scenes("test", n_samples=n_scenes, random_state=SEED)
    clf = DiffusionClassifier(pruner=NoPruning(N_DRAWS), random_state=SEED)
    clf.fit(None, list(DIGIT_NAMES))
    cache.mkdir(parents=True, exist_ok=True)
    tables = []
    for start in range(0, n_scenes, CHUNK):
        path = cache / f"scenes-{n_scenes}-{start:05}.parquet"  # scenes depend on their number
        if not path.exists():
            began = time.perf_counter()
            partial = path.with_suffix(".part")
            clf.errors(scenes.images[start : start + CHUNK]).to_parquet(partial)
            partial.rename(path)
            rate = time.perf_counter() - began
            print(f"recorded {start + CHUNK} of {n_scenes} scenes, {rate:.0f} s", flush=True)
        tables.append(ErrorTable.from_parquet(path))
    errors = np.concatenate([table.errors for table in tables])
    active = np.concatenate([table.active for table in tables])
    digits = np.array(scenes.digit)[: len(errors)]
    return replace(tables[0], errors=errors, active=active), digits


def fit(table, digits, pruner, weighting, calibrator):
    clf = DiffusionClassifier(
        pruner=pruner,
        weighting=weighting,
        calibrator=calibrator,
        n_fit_images=N_FIT,
        random_state=SEED,
    )
    return clf.fit(table[:N_FIT], digits[:N_FIT])


def race(table, digits, pruner, weighting):
    """Figures of one pruner and weighting, per raced scene."""
    clf = fit(table, digits, pruner, weighting, "temperature")
    by_draws = fit(table, digits, pruner, weighting, "temperature-draws")
    rest, columns = table[N_FIT:], np.searchsorted(clf.classes_, digits[N_FIT:])
    full = rest.replay(None, clf.weighting_).log_posterior().numpy().argmax(1)
    raced = rest.race(clf.pruner_, clf._scoring)
    untempered = replace(clf._scoring, log_temperature=(0.0, 0.0))
    answers = clf.predict_proba(raced).argmax(1)
    return {
        "right": answers == columns,
        "change": (answers == columns).astype(int) - (full == columns),
        "differs": answers != full,
        "evaluations": raced.n_evaluations,
        "resolved": raced.certificate.resolved,
        "temperature": float(np.exp(clf.calibrator_.log_temperature_[0])),
        "before": probability_figures(raced.log_posterior(untempered).numpy(), columns),
        "after": probability_figures(clf.predict_log_proba(raced), columns),
        "by_draws": probability_figures(by_draws.predict_log_proba(raced), columns),
    }


def probability_figures(log_proba, columns):
    """Per scene: log-loss, Brier score, confidence and whether it was right."""
    proba = np.exp(log_proba)
    hot = np.eye(proba.shape[1])[columns]
    return {
        "log_loss": -log_proba[np.arange(len(columns)), columns],
        "brier": ((proba - hot) ** 2).sum(1),
        "confidence": proba.max(1),
        "right": proba.argmax(1) == columns,
    }


def calibration_error(confidence, right):
    """Expected calibration error over BINS bins of equal width."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return np.abs(gaps).sum() / len(right)


def interval(figure, *columns):
    """A figure with its 95 % bootstrap interval over scenes."""
    rng = np.random.default_rng(SEED)
    n = len(columns[0])
    picks = rng.integers(n, size=(BOOTSTRAP, n))
    values = [figure(*(column[pick] for column in columns)) for pick in picks]
    return [float(figure(*columns)), *np.quantile(values, [0.025, 0.975]).tolist()]


def summarise(figures, staged):
    """All figures of one race with intervals; ``staged`` is what savings are relative to."""
    row = {
        "accuracy": interval(np.mean, figures["right"]),
        "change": interval(np.mean, figures["change"]),
        "differs": interval(np.mean, figures["differs"]),
        "evaluations": interval(np.mean, figures["evaluations"]),
        "of_full": float(figures["evaluations"].mean() / (len(DIGIT_NAMES) * N_DRAWS)),
        "of_staged": float(figures["evaluations"].mean() / staged["evaluations"].mean()),
        "resolved": float(figures["resolved"].mean()),
        "temperature": figures["temperature"],
    }
    for when in ("before", "after", "by_draws"):
        part = figures[when]
        row[f"ece_{when}"] = interval(calibration_error, part["confidence"], part["right"])
        row[f"log_loss_{when}"] = interval(np.mean, part["log_loss"])
        row[f"brier_{when}"] = interval(np.mean, part["brier"])
    return row


COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}"),
    "accuracy less that of the full grid": ("change", "{:+.1%}"),
    "differs from full": ("differs", "{:.1%}"),
    "evaluations per scene": ("evaluations", "{:.0f}"),
    "of the full grid": ("of_full", "1/{:.1f}"),
    "of staged": ("of_staged", "1/{:.1f}"),
    "resolved": ("resolved", "{:.0%}"),
    "T": ("temperature", "{:.2f}"),
    "ECE, T = 1": ("ece_before", "{:.3f}"),
    "ECE": ("ece_after", "{:.3f}"),
    "ECE, T(n)": ("ece_by_draws", "{:.3f}"),
    "log-loss, T = 1": ("log_loss_before", "{:.3f}"),
    "log-loss": ("log_loss_after", "{:.3f}"),
    "log-loss, T(n)": ("log_loss_by_draws", "{:.3f}"),
    "Brier, T = 1": ("brier_before", "{:.4f}"),
    "Brier": ("brier_after", "{:.4f}"),
    "Brier, T(n)": ("brier_by_draws", "{:.4f}"),
}


def as_text(value, form):
    if form.startswith("1/"):
        return form.format(1 / value)
    if isinstance(value, float):
        return form.format(value)
    return "{} ({} to {})".format(*map(form.format, value))


def as_markdown(rows, n_images, command):
    lines = [
        "# The race: every pruner with every weighting, on the same errors",
        "",
        f"The embedded model on {n_images} held-out scenes, 10 digits, {N_DRAWS} draws recorded in "
        f"full: {len(DIGIT_NAMES) * N_DRAWS:,} evaluations per scene. Weights, profile and "
        f"temperature T are learned from {N_FIT} further scenes.",
        "",
        f"In brackets: 95 % bootstrap intervals over scenes ({BOOTSTRAP} resamples). ECE has "
        f"{BINS} bins. *T = 1*: before calibration; *T(n)*: a temperature that depends on the "
        f"draws taken. One seed of scenes and draws: {SEED}.",
        "",
        "| pruner | weighting | " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * (len(COLUMNS) + 2),
    ]
    for (pruner, weighting), row in rows.items():
        cells = [as_text(row[key], form) for key, form in COLUMNS.values()]
        lines.append(f"| {pruner} | {weighting} | " + " | ".join(cells) + " |")
    return "\n".join(
        [*lines, "", "![Evaluations against accuracy](race.png)", "", f"`{command}`", ""]
    )


def draw(rows, path):
    """Evaluations against disagreement with the full grid, one colour per pruner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for pruner in PRUNERS:
        points = {w: row for (p, w), row in rows.items() if p == pruner}
        x = [row["evaluations"][0] for row in points.values()]
        y = [100 * row["accuracy"][0] for row in points.values()]
        axes.plot(x, y, "o", label=pruner)
        for name, *point in zip(points, x, y, strict=True):
            axes.annotate(name, point, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", xlabel="evaluations per scene", ylabel="accuracy in %")
    axes.legend()
    figure.savefig(path, dpi=150)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=1000, help="scenes raced")
    parser.add_argument("--cache", type=Path, default=Path("build/race"), help="recorded errors")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder")
    args = parser.parse_args(argv)
    table, digits = record(N_FIT + args.n_images, args.cache)
    figures = {(p, w): race(table, digits, p, w) for w in WEIGHTINGS for p in PRUNERS}
    rows = {
        (pruner, weighting): summarise(part, figures["staged", weighting])
        for (pruner, weighting), part in figures.items()
    }
    args.output.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "benchmarks/race.py", *argv])
    text = as_markdown(rows, len(table) - N_FIT, command)
    (args.output / "race.md").write_text(text, encoding="utf-8")
    facts = [{"pruner": p, "weighting": w, **row} for (p, w), row in rows.items()]
    (args.output / "race.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    draw(rows, args.output / "race.png")
    print(text)


if __name__ == "__main__":
    main()
