"""Compare pruners, weightings and two samplers on recorded errors of the embedded model.

This records all errors of held-out scenes once per sampler (10 digits x 200 draws), learns weights,
sampler, profile and temperature from the first 100 scenes, and replays the race on the others.
Recording 1,100 scenes takes about 25 minutes on 2 CPU cores, and the races about 5; an interrupted
run resumes:

    python benchmarks/race.py
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from pictures import draw_page
from report import (
    BINS,
    BOOTSTRAP,
    as_table,
    calibration_error,
    interval,
    probability_figures,
    write_page,
)

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.estimator.fitting import fit_record
from diffusion_classifier.pruners import (
    NoPruning,
    PairedTestPruner,
    RacingPruner,
    StagedPruner,
    ThresholdPruner,
)
from diffusion_classifier.records import ErrorTable
from diffusion_classifier.samplers import ImportanceSampler, StratifiedSampler

SEED = 0  # for scenes, draws and bootstrap
N_FIT = 100  # scenes that strategies learn from; the others are raced
N_DRAWS = 200
PILOT = 50  # draws that the importance sampler learns from, as in fit(X, y)
CHUNK = 10  # scenes per file
N_DEFAULT = 300  # of the raced scenes, for the classifier as it is without labels
N_JOBS = 2

PRUNERS = {
    "none": NoPruning(),
    "staged": StagedPruner(),
    "paired": PairedTestPruner(),
    "paired, from 4": PairedTestPruner(4, p_value=0.05),
    "threshold": ThresholdPruner(),
    "racing": RacingPruner(),
    "racing, unlearned": RacingPruner(),  # estimates variances from the raced image only
}
RACED = [("uniform", name) for name in PRUNERS]
RACED += product(("likelihood", "fitted"), ("none", "staged", "racing"))


def record(sampler, name, n_scenes, cache, some=None):
    """Record the errors of test scenes: all errors or, without a sampler, those of the defaults."""
    cache.mkdir(parents=True, exist_ok=True)
    starts = range(*(some or (0, n_scenes)), CHUNK)
    paths = [cache / f"{name}-{n_scenes}-{start:05}.parquet" for start in starts]
    Parallel(N_JOBS)(
        delayed(record_chunk)(sampler, n_scenes, start, path)
        for start, path in zip(starts, paths, strict=True)
        if not path.exists()
    )
    return ErrorTable.concatenate(map(ErrorTable.from_parquet, paths))


def record_chunk(sampler, n_scenes, start, path):
    torch.set_num_threads(1)
    # Load all scenes in every chunk, because the scenes depend on n_samples.
    scenes = load_scenes("test", n_samples=n_scenes, random_state=SEED)
    pruner = RacingPruner() if sampler is None else NoPruning(N_DRAWS)
    clf = DiffusionClassifier(sampler=sampler, pruner=pruner, random_state=SEED, verbose=0)
    began, partial = time.perf_counter(), path.with_suffix(".part")
    table = clf.fit(None, list(DIGIT_NAMES)).errors(scenes.images[start : start + CHUNK])
    table.to_parquet(partial)
    partial.rename(path)
    print(f"{path.name}: {time.perf_counter() - began:.0f} s", flush=True)


def record_tables(n_scenes, cache):
    """Record the full table of each sampler; also return digits."""
    digits = np.array(load_scenes("test", n_samples=n_scenes, random_state=SEED).digit)
    uniform = record(StratifiedSampler(), "uniform", n_scenes, cache)
    pilot = uniform[:N_FIT].race(NoPruning(PILOT), uniform.scoring)
    columns = np.searchsorted(uniform.classes, digits[:N_FIT])
    learned = ImportanceSampler().learn(fit_record(pilot, columns)).proposal_
    importance = record(ImportanceSampler(proposal=learned), "importance", n_scenes, cache)
    return {"uniform": uniform, "importance": importance}, digits


def fit(table, digits, pruner, weighting):
    clf = DiffusionClassifier(
        pruner=pruner,
        weighting=weighting,
        calibrator="temperature",
        n_fit_images=N_FIT,
        random_state=SEED,
    )
    return clf.fit(table[:N_FIT], digits[:N_FIT])


def race(table, digits, name, weighting):
    """Race one pruner with one weighting; return its figures per scene."""
    clf = fit(table, digits, PRUNERS[name], weighting)
    rest, columns = table[N_FIT:], np.searchsorted(clf.classes_, digits[N_FIT:])
    full = rest.replay(None, clf.weighting_).log_posterior().numpy().argmax(1)
    pruner = PRUNERS[name] if name == "racing, unlearned" else clf.pruner_
    raced = rest.race(pruner, clf._scoring)
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
    }


def summarise(figures, staged, uniform):
    """Summarise the figures of one race with intervals, and relative to other races."""
    spent = figures["evaluations"]
    row = {
        "accuracy": interval(np.mean, figures["right"]),
        "change": interval(np.mean, figures["change"]),
        "differs": interval(np.mean, figures["differs"]),
        "evaluations": interval(np.mean, spent),
        "of_full": float(spent.mean() / (len(DIGIT_NAMES) * N_DRAWS)),
        "of_staged": float(spent.mean() / staged["evaluations"].mean()),
        "of_uniform": interval(lambda a, b: a.mean() / b.mean(), spent, uniform["evaluations"]),
        "resolved": float(figures["resolved"].mean()),
        "temperature": figures["temperature"],
    }
    for when in ("before", "after"):
        part = figures[when]
        row[f"ece_{when}"] = interval(calibration_error, part["confidence"], part["right"])
        row[f"log_loss_{when}"] = interval(np.mean, part["log_loss"])
        row[f"brier_{when}"] = interval(np.mean, part["brier"])
    return row


RACES = {
    "accuracy": ("accuracy", "{:.1%}"),
    "less that of the full grid": ("change", "{:+.2%}"),
    "differs from full": ("differs", "{:.1%}"),
    "evaluations per scene": ("evaluations", "{:.0f}"),
    "of the full grid": ("of_full", "1/{:.1f}"),
    "of staged": ("of_staged", "1/{:.1f}"),
    "of uniform weights": ("of_uniform", "{:.2f}"),
    "resolved": ("resolved", "{:.0%}"),
}
PROBABILITIES = {
    "T": ("temperature", "{:.2f}"),
    "ECE, T = 1": ("ece_before", "{:.3f}"),
    "ECE": ("ece_after", "{:.3f}"),
    "log-loss, T = 1": ("log_loss_before", "{:.3f}"),
    "log-loss": ("log_loss_after", "{:.3f}"),
    "Brier, T = 1": ("brier_before", "{:.4f}"),
    "Brier": ("brier_after", "{:.4f}"),
}


def race_defaults(raced, full, columns):
    """Summarise the figures of ``DiffusionClassifier().fit(None, labels)`` with intervals."""
    answers = raced.log_posterior().numpy().argmax(1)
    return {
        "accuracy": interval(np.mean, answers == columns),
        "change": interval(np.mean, (answers == columns).astype(int) - (full == columns)),
        "differs": interval(np.mean, answers != full),
        "evaluations": interval(np.mean, raced.n_evaluations),
        "resolved": float(raced.certificate.resolved.mean()),
    }


def as_markdown(rows, defaults, n_images):
    shipped = (
        "Without a single label, `DiffusionClassifier().fit(None, labels)` on the first "
        f"{min(N_DEFAULT, n_images):,} of these scenes: accuracy {{:.1%}} "
        "({:.1%} to {:.1%}), {:+.2%} ({:+.2%} to {:+.2%}) against the full grid of uniform "
        "timesteps; {:.0f} ({:.0f} to {:.0f}) evaluations per scene; {:.0%} resolved."
    ).format(
        *defaults["accuracy"], *defaults["change"], *defaults["evaluations"], defaults["resolved"]
    )
    return "\n".join(
        [
            "# The race: pruners, weightings and samplers on the same errors",
            "",
            f"The embedded model on {n_images:,} held-out scenes, 10 digits, {N_DRAWS} draws "
            f"recorded in full: {len(DIGIT_NAMES) * N_DRAWS:,} evaluations per scene, once with "
            "uniform timesteps (`StratifiedSampler()`) and once with those of an "
            f"`ImportanceSampler()`. Sampler (from {PILOT} draws, for uniform weights), weights, "
            "the racing pruner's variance and the temperature T are learned from "
            f"{N_FIT} further scenes. *Racing, unlearned* has the image's own variance instead.",
            "",
            f"In brackets: 95 % bootstrap intervals over scenes ({BOOTSTRAP:,} resamples). An "
            "interval of no width says that no scene differed, which is not that none would: its "
            f"95 % bound is {3 / n_images:.1%}. Full grid: the same draws and weights without "
            "pruning. *Of uniform weights*: evaluations relative to the same pruner with uniform "
            f"weights. ECE has {BINS} bins. *T = 1*: before calibration. One seed of scenes and "
            f"draws: {SEED}.",
            "",
            shipped,
            "",
            "![Evaluations, and answers unlike the full grid's](race.png)",
            "",
            "## Races",
            "",
            *as_table(("sampler", "pruner", "weighting"), RACES, rows),
            "",
            "## Probabilities",
            "",
            *as_table(("sampler", "pruner", "weighting"), PROBABILITIES, rows),
            "",
        ]
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=1000, help="scenes raced")
    parser.add_argument("--cache", type=Path, default=Path("build/race"), help="recorded errors")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder")
    args = parser.parse_args(argv)
    tables, digits = record_tables(N_FIT + args.n_images, args.cache)
    rows = {}
    for sampler, table in tables.items():
        figures = {(p, w): race(table, digits, p, w) for w, p in RACED}
        for (pruner, weighting), part in figures.items():
            rows[sampler, pruner, weighting] = summarise(
                part, figures["staged", weighting], figures[pruner, "uniform"]
            )
            print(sampler, pruner, weighting, part["evaluations"].mean(), flush=True)
    some = N_FIT, N_FIT + min(N_DEFAULT, args.n_images)
    default = record(None, "default", N_FIT + args.n_images, args.cache, some)
    full = tables["uniform"][slice(*some)].log_posterior().numpy().argmax(1)
    columns = np.searchsorted(default.classes, digits[slice(*some)])
    defaults = race_defaults(default, full, columns)
    text = as_markdown(rows, defaults, args.n_images)
    write_page(args.output / "race.md", text, argv)
    facts = [{"sampler": s, "pruner": p, "weighting": w, **row} for (s, p, w), row in rows.items()]
    facts.append({"sampler": "default", "pruner": "default", "weighting": "uniform", **defaults})
    (args.output / "race.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    draw_page(args.output / "race.md")


if __name__ == "__main__":
    main()
