"""Measure what probabilities without labels are worth, on the embedded model and small networks.

Log-loss and calibration error of T = 1, of the natural temperature with and without each image's
doubt, of the best temperature (chosen on the very images it is measured on), and of models that
taught themselves. Races are replayed from recorded errors. Writes docs/benchmarks/probabilities.md:

    python benchmarks/probabilities.py --images mnist.npz fashion.npz

The files, networks and held-out images are those of weightings.py, and the scenes those of race.py;
what these scripts recorded is read from their folders. One more network is trained for 100 steps
only. From scratch all this takes two hours on 2 CPU cores, and from recorded errors a minute.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import weightings
from race import N_FIT, record_tables
from report import BINS, as_table, calibration_error, interval, probability_figures, write_page
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.datasets import DIGIT_NAMES
from diffusion_classifier.estimator.fitting import learn_from_table
from diffusion_classifier.estimator.self_teaching import draw_lesson
from diffusion_classifier.noise import PREDICTION_TYPES
from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring import NaturalCalibrator, UniformWeighting
from diffusion_classifier.strategies import Strategies

FEW_STEPS = 100  # of the undertrained network
N_SCENES, N_FEW = 1100, 150
FEW = f"embedded model, first {N_FEW}"
# Images and draws of a lesson; fewer for small networks, because they take 15 ms a row.
EMBEDDED_LESSON, NETWORK_LESSON = (40, 40), (40, 20)


class Lesson(NamedTuple):
    """Recorded errors of images that a model drew."""

    table: ErrorTable
    true_class: np.ndarray
    guidance: float

    @property
    def recognised(self):
        """Share of the drawings that the model recognises, on all draws."""
        return float((self.table.class_losses().argmin(1).numpy() == self.true_class).mean())


class Case(NamedTuple):
    """Recorded errors of real images, with their columns, and the model's lesson, if it had one."""

    table: ErrorTable
    columns: np.ndarray
    lesson: Lesson | None


def lesson_of(backend, labels, n_images, n_draws, path):
    """Let a model draw images and record their errors, or read what was recorded before."""
    if not path.exists():
        clf = DiffusionClassifier(
            backend, pruner=RacingPruner(max_draws=n_draws), random_state=0, batch_size="auto"
        )
        lesson = draw_lesson(clf.fit(None, labels)._predictor(), n_images, 0)
        table = lesson.predictor.table(lesson.images)
        np.savez(path, guidance=lesson.guidance)
        table.to_parquet(path)
        print(f"{path.name}: guidance {lesson.guidance}", flush=True)
    found = np.load(path.with_name(path.name + ".npz"))
    table = ErrorTable.from_parquet(path)
    true_class = np.arange(len(table)) % len(table.classes)
    return Lesson(table, true_class, float(found["guidance"]))


def train_briefly(pictures, labels, path):
    """Train a network on noise for a hundred steps, or read it."""
    torch.manual_seed(1)
    network = weightings.make_network()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    if path.exists():
        average.load_state_dict(torch.load(path, weights_only=True))
        return average
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule, target = weightings.make_schedule("epsilon"), PREDICTION_TYPES["epsilon"].target
    for step in range(FEW_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * max(0.05, 1 - step / FEW_STEPS)
        rows, t = torch.randint(len(pictures), (32,)), torch.randint(weightings.T, (32,))
        x = pictures[rows]
        eps = torch.randn_like(x)
        alpha, sigma = (level.float().view(-1, 1, 1, 1) for level in schedule.at(t))
        output = network(alpha * x + sigma * eps, t, class_labels=labels[rows]).sample
        loss = (output - target(x, eps, alpha, sigma)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - min(0.99, step / (step + 10)))
    torch.save(average.state_dict(), path)
    return average


def network_case(path, kind, folder, cache, has_lesson=True):
    """Train or read a network, and record or read its errors; "epsilon" is the undertrained one."""
    data = np.load(path)
    order = np.random.RandomState(0).permutation(len(data["images"]))
    images, labels = data["images"][order], data["labels"][order].astype(np.int64)
    held_out = weightings.N_HELD_OUT
    scaled = torch.as_tensor(images[held_out:]).float()[:, None] / 127.5 - 1
    targets, name = torch.as_tensor(labels[held_out:]), f"{path.stem}-{kind}"
    if kind == "epsilon":
        network = train_briefly(scaled, targets, folder / f"{name}-{FEW_STEPS}.pt")
    else:
        network = weightings.train(kind, scaled, targets, folder / f"{name}.pt")
    chosen = slice(held_out - weightings.N_IMAGES, held_out)
    table = weightings.record(network, kind, images[chosen], folder / f"{name}.parquet")
    backend = FunctionBackend(
        lambda z, t, k: network(z, t, class_labels=k).sample,
        schedule=weightings.make_schedule(kind),
        prediction_type=kind,
        input_shape=(1, 28, 28),
    )
    kept = cache / f"drawn-{name}.parquet"
    lesson = lesson_of(backend, list(range(10)), *NETWORK_LESSON, kept) if has_lesson else None
    return Case(table, labels[chosen][: len(table)], lesson)


def embedded_case(races, cache):
    """Record or read the errors of the embedded model."""
    tables, digits = record_tables(N_SCENES, races)
    table = tables["uniform"][N_FIT:]
    lesson = lesson_of(None, list(DIGIT_NAMES), *EMBEDDED_LESSON, cache / "drawn-embedded.parquet")
    return Case(table, np.searchsorted(table.classes, digits[N_FIT:]), lesson)


def taught_by(lesson, max_draws):
    """Let strategies learn from a lesson, as ``fit(None, y)`` does."""
    strategies = Strategies(
        UniformWeighting(),
        StratifiedSampler(),
        RacingPruner(max_draws=max_draws),
        NaturalCalibrator(),
    )
    learn_from_table(strategies, lesson.table, lesson.true_class, 0, are_drawn=True)
    return strategies.pruner, strategies.calibrator


def measure(case):
    """Compute the figures of each kind of probabilities."""
    table, columns = case.table, case.columns
    weighting = UniformWeighting()
    weights = weighting.weights(table.schedule, table.prediction_type)
    natural = NaturalCalibrator().prepare(weighting, weights, table.schedule, table.loss)
    doubted = replace(table.scoring, weights=weights).calibrated(natural)
    plain = replace(doubted, unit="given")
    one = replace(plain, log_temperature=(0.0, 0.0))
    unlearned = RacingPruner(max_draws=len(table.timesteps))
    raced = table.race(unlearned, one)
    best = replace(plain, log_temperature=(best_level(raced, columns), 0.0))
    kinds = {
        "race, T = 1": (raced, one),
        "race, natural without doubt": (raced, plain),
        "race, natural (default)": (raced, doubted),
        "race, best T": (raced, best),
        "all draws, natural": (table, doubted),
    }
    if case.lesson is not None:
        pruner, calibrator = taught_by(case.lesson, len(table.timesteps))
        raced = table.race(pruner, one)
        taught = replace(doubted, log_temperature=calibrator.log_temperature_)
        best = replace(plain, log_temperature=(best_level(raced, columns), 0.0))
        kinds["self-taught"] = raced, taught
        kinds["self-taught race, best T"] = raced, best
    found = {
        kind: probability_figures(races.log_posterior(scoring).numpy(), columns)
        for kind, (races, scoring) in kinds.items()
    }
    reference = found["race, natural (default)"]["log_loss"]
    full = table.class_losses().numpy().argmin(1)
    return {
        kind: {
            "accuracy": interval(np.mean, own["right"]),
            "differs": interval(np.mean, races.class_losses().numpy().argmin(1) != full),
            "evaluations": interval(np.mean, races.n_evaluations),
            "log_loss": interval(np.mean, own["log_loss"]),
            "change": interval(np.mean, own["log_loss"] - reference),
            "ece": interval(calibration_error, own["confidence"], own["right"]),
        }
        for (kind, own), (races, _) in zip(found.items(), kinds.values(), strict=True)
    }


def best_level(table, columns):
    """Find log T of the smallest log-loss, on the images themselves."""
    losses = table.class_losses().numpy()
    rows = np.arange(len(columns))

    def log_loss(level):
        return -log_softmax(-losses / np.exp(level), 1)[rows, columns].mean()

    return float(minimize_scalar(log_loss, bounds=(-8, 14), method="bounded").x)


COLUMNS = {
    "evaluations": ("evaluations", "{:.0f}"),
    "accuracy": ("accuracy", "{:.1%}"),
    "unlike all draws'": ("differs", "{:.1%}"),
    "log-loss": ("log_loss", "{:.3f}"),
    "log-loss less the default's": ("change", "{:+.3f}"),
    "ECE": ("ece", "{:.3f}"),
}


def conclusion(figures):
    """Say how often natural and self-taught probabilities are better, over models."""

    def excess(one, other):
        """Log-loss of one kind less that of the other, smallest and largest over models."""
        values = [
            kinds[one]["log_loss"][0] - kinds[other]["log_loss"][0]
            for name, kinds in figures.items()
            if one in kinds and name != FEW  # which are counted already
        ]
        return f"{min(values):+.3f} to {max(values):+.3f}", sum(v < 0 for v in values), len(values)

    default, taught = "race, natural (default)", "self-taught"
    plain, n_better, n_models = excess(default, "race, T = 1")
    bound, *_ = excess(default, "race, best T")
    lines = [
        f"The default's log-loss is that of T = 1 {plain}, and lower for {n_better} of {n_models} "
        f"models. It is that of the best T {bound}. Doubt costs little where a network is good, "
        "and saves much where it is inexact. It does not make an undertrained network humble "
        "enough."
    ]
    if any(taught in kinds for kinds in figures.values()):
        change, *_, n_taught = excess(taught, default)
        limit, *_ = excess(taught, "self-taught race, best T")
        lines += [
            "",
            f"Self-taught races are shorter. Their log-loss is the default's {change} for "
            f"{n_taught} models, and that of their own best T {limit}. An image's doubt then rests "
            "on fewer draws, which makes right answers less sure. Drawings cannot tell by how "
            "much: a model recognises its own drawings also where it is often wrong about real "
            "images.",
        ]
    return lines


def page(cases, figures):
    """Write the page's lines."""
    first = cases["embedded model"]
    lessons = [
        f"| {name} | {len(case.table):,} × {len(case.table.timesteps)} | "
        f"{len(case.lesson.table)} × {len(case.lesson.table.timesteps)} | "
        f"{case.lesson.guidance:g} | {case.lesson.recognised:.0%} |"
        for name, case in cases.items()
        if case.lesson is not None
    ]
    rows = {(name, kind): row for name, kinds in figures.items() for kind, row in kinds.items()}
    return [
        "# Probabilities without labels",
        "",
        f"Ten classes each. The embedded model classifies {len(first.table):,} held-out scenes. "
        "Small class-conditional UNets classify MNIST and Fashion-MNIST pictures that they were "
        f"not trained on. The one called epsilon was trained for {FEW_STEPS} steps only, the "
        f"others for {weightings.STEPS:,}. Weights are uniform. Races are those of RacingPruner, "
        "replayed from recorded errors.",
        "",
        "No label, and none of these images, chose anything in the rows of natural and self-taught "
        "probabilities. The natural temperature follows from the noise schedule. The number 20 in "
        "an image's doubt was chosen on Gaussian class models of eight data sets. A self-taught "
        "model learned from images that it drew. *Best T* is chosen on the images that it is "
        "measured on: a bound, and no method.",
        "",
        "*Unlike all draws'* is the share of answers that differ from those of the whole record. "
        f"ECE is the calibration error in {BINS} bins. Intervals are 95 %, bootstrapped over "
        "images; differences are paired. One seed of the draws and drawings.",
        "",
        *as_table(("model", "probabilities"), COLUMNS, rows),
        "",
        *conclusion(figures),
        "",
        "## What the models drew",
        "",
        "| model | real images × draws | drawn images × draws | guidance | recognised |",
        "|---|---|---|---|---|",
        *lessons,
        "",
        "*Recognised* is the share of drawings whose class the model finds again, without pruning.",
        "",
    ]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=Path, required=True)
    parser.add_argument("--networks", type=Path, default=Path("build/weightings"))
    parser.add_argument("--scenes", type=Path, default=Path("build/race"))
    parser.add_argument("--lessons", type=Path, default=Path("build/probabilities"))
    parser.add_argument("--untaught", nargs="*", default=[], help="networks without a lesson")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/probabilities.md"))
    args = parser.parse_args(argv)
    args.lessons.mkdir(parents=True, exist_ok=True)
    args.networks.mkdir(parents=True, exist_ok=True)
    scenes = embedded_case(args.scenes, args.lessons)
    few = Case(scenes.table[:N_FEW], scenes.columns[:N_FEW], scenes.lesson)
    cases = {"embedded model": scenes, FEW: few}
    kinds = [(path, kind) for path in args.images for kind in weightings.KINDS]
    for path, kind in [*kinds, (args.images[0], "epsilon")]:
        name = f"{path.stem}, {kind}"
        has_lesson = f"{path.stem}-{kind}" not in args.untaught
        cases[name] = network_case(path, kind, args.networks, args.lessons, has_lesson)
    figures = {name: measure(case) for name, case in cases.items()}
    write_page(args.output, "\n".join(page(cases, figures)), argv)


if __name__ == "__main__":
    main()
