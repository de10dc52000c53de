"""Measure what keeping errors costs, and what it saves.

Three parts, each with its own command:

    python benchmarks/store.py overhead    # time with memory= over time without, embedded model
    python benchmarks/store.py reuse       # evaluations that are paid again over a stored set
    python benchmarks/store.py flat        # peak memory over 10,000 and over 100,000 images

``overhead`` alternates both in one process: each pair predicts the same scenes without and with a
new store, in an order that changes from pair to pair.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import numpy as np
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from diffusion_classifier.race.progress import Progress
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.store import ErrorStore

BATCH = 64


def embedded(memory=None, labels=DIGIT_NAMES, **options):
    options = {"batch_size": BATCH, "random_state": 0, "verbose": 0, **options}
    return DiffusionClassifier(memory=memory, **options).fit(None, list(labels))


def seconds(call):
    """Return wall-clock seconds and processor seconds of a call."""
    start, busy = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - start, time.process_time() - busy])


def overhead(n_images, n_pairs):
    """Print the ratio of times with a new, a full and no store, and its spread."""
    images = load_scenes("test", n_samples=n_images).images
    plain, ratios = embedded(), {"new store": [], "full store": []}
    plain.predict(images[:4])
    for pair in range(n_pairs):
        kept = embedded(tempfile.mkdtemp())
        clfs = [plain, kept] if pair % 2 else [kept, plain]
        taken = {clf: seconds(lambda clf=clf: clf.predict(images)) for clf in clfs}
        ratios["new store"].append(taken[kept] / taken[plain])
        ratios["full store"].append(seconds(lambda kept=kept: kept.predict(images)) / taken[plain])
    for name, values in ratios.items():
        for clock, column in zip(("wall clock", "processor"), np.transpose(values), strict=True):
            low, middle, high = np.quantile(column, [0.25, 0.5, 0.75])
            print(f"{name}, {clock}: {middle:.3f} (quartiles {low:.3f} to {high:.3f}) of without")
    print(
        f"{n_images} images, {n_pairs} pairs, {torch.get_num_threads()} threads, "
        f"{taken[plain][0] / n_images:.2f} s per image"
    )


@contextmanager
def counted():
    """Count the evaluations of a block."""
    counts, add = [], Progress.add_evaluations

    def add_evaluations(self, n):
        counts.append(n)
        add(self, n)

    Progress.add_evaluations = add_evaluations
    try:
        yield counts
    finally:
        Progress.add_evaluations = add


def reuse(n_images):
    """Print the evaluations of later questions over a stored set."""
    images, folder = load_scenes("test", n_samples=n_images).images, tempfile.mkdtemp()
    five, ten = DIGIT_NAMES[:5], DIGIT_NAMES
    full = NoPruning(40)
    # The default sampler of this model proposes other timesteps under other weights.
    sampler = StratifiedSampler()
    questions = {
        "five labels, 40 draws": {"labels": five, "pruner": full},
        "the same again": {"labels": five, "pruner": full},
        "a racing pruner": {"labels": five, "pruner": RacingPruner(max_draws=40)},
        "a staged pruner": {"labels": five, "pruner": StagedPruner((10,), (2,), max_draws=40)},
        '"likelihood" weighting': {"labels": five, "pruner": full, "weighting": "likelihood"},
        "five more labels": {"labels": ten, "pruner": full},
        "20 more draws": {"labels": ten, "pruner": NoPruning(60)},
    }
    print(f"| {n_images} scenes | evaluations | of |\n|---|---|---|")
    for name, options in questions.items():
        with counted() as counts:
            table = embedded(folder, sampler=sampler, **options).errors(images)
        print(f"| {name} | {sum(counts):,} | {int(table.n_evaluations.sum()):,} |")
    print(ErrorStore(folder).info()._replace(models=[]))


def tiny(z, t, c):
    return z * (c[:, None] + 1) / 4


def race_tiny_images(n_images):
    """Race tiny images in this process; print the time and the peak of resident memory."""
    X = np.random.default_rng(0).normal(size=(100_000, 8)).astype(np.float32)
    backend = FunctionBackend(
        tiny, schedule=NoiseSchedule.flow(100), input_kind="array", input_shape=(8,), name="tiny"
    )
    folder = tempfile.mkdtemp()
    clf = DiffusionClassifier(
        backend, pruner=NoPruning(16), memory=folder, random_state=0, batch_size=1024, verbose=0
    )
    clf.fit(None, [0, 1, 2, 3])
    time_taken, _ = seconds(lambda: clf.predict(X[:n_images]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    info = ErrorStore(folder).info()
    print(
        f"{n_images:,} images: peak {peak:.0f} MiB, {n_images / time_taken:,.0f} images per "
        f"second, {info.errors:,} errors in {info.bytes / 2**20:.1f} MiB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["overhead", "reuse", "flat", "race"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--pairs", type=int, default=11)
    arguments = parser.parse_args()
    if arguments.part == "overhead":
        overhead(arguments.images or 60, arguments.pairs)
    elif arguments.part == "reuse":
        reuse(arguments.images or 20)
    elif arguments.part == "race":
        race_tiny_images(arguments.images or 1_000)
    else:  # each in a process of its own, as a peak does not go down
        for n_images in (10_000, arguments.images or 100_000):
            command = [sys.executable, __file__, "race", "--images", str(n_images)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
