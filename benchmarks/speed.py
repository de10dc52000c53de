"""Measure what races cost beyond the network: CPU time over that of the calls of the network.

About three minutes on one core; one thread. Writes docs/benchmarks/speed.md:

    python benchmarks/speed.py
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from report import as_table, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend, load_embedded
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.race import DrawTape, ErrorSource, run_race
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring import Scoring

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BATCH = 128  # of the bare network; what the library chooses for the embedded one
EMBEDDED = {(10, 8): "1.11", (10, 1): "1.36", (2, 8): "1.41"}  # classes, images: at the start
INSTANT = {(1000, 200): "0.46", (1000, 1000): "16"}
MANY = [100, 500, 2000]
FULL = [(2, 64), (3, 64), (3, 512), (10, 64), (10, 256), (37, 64)]
SCENE = (4, 8, 8)
STEPS, DRAWS_OF_STEPS = [(2, 1000), (10, 100), (10, 500), (100, 20)], 40


class Watched:
    """A classifier whose network notes the CPU time and the rows of its calls."""

    def __init__(self, backend, labels, **options):
        self.classifier = DiffusionClassifier(backend, random_state=0, verbose=0, **options)
        self.classifier.fit(None, labels)
        network = self.classifier.backend_
        forward = network.forward

        def watched(z, t, condition):
            start = time.process_time()
            output = forward(z, t, condition)
            self.spent += time.process_time() - start
            self.rows.append(len(z))
            return output

        network.forward = watched

    def predict(self, X):
        """Return the CPU seconds of one ``predict_proba``, and of its network calls."""
        self.spent, self.rows = 0.0, []
        start = time.process_time()
        self.classifier.predict_proba(X)
        return time.process_time() - start, self.spent


def embedded(n_classes):
    return Watched(load_embedded(), DIGITS[:n_classes])


def instant(n_classes, max_draws, spread, shape=(4, 1, 1)):
    """A network that costs nothing, and whose classes are hard to tell apart."""
    generator = torch.Generator().manual_seed(0)
    outputs = spread * torch.randn(n_classes, *shape, generator=generator)
    backend = FunctionBackend(
        lambda z, t, condition: outputs[condition],
        schedule=NoiseSchedule.flow(100),
        input_shape=shape,
        input_kind="array",
    )
    return Watched(backend, list(range(n_classes)), pruner=RacingPruner(max_draws=max_draws))


def bare_seconds(watched, n_rows):
    """CPU seconds of the bare network for so many rows, in full batches."""
    backend = watched.classifier.backend_
    labels = DIGITS[: len(watched.classifier.classes_)]
    prompts = [watched.classifier.prompts_[label] for label in labels]
    prompts = [p if isinstance(p, str) else p[0] for p in prompts]
    condition = backend.encode_classes(labels, prompts)
    condition = condition[torch.arange(BATCH) % len(labels)]
    z, t = torch.randn(BATCH, *watched.shape), torch.arange(BATCH)
    n_calls = max(1, round(n_rows / BATCH))
    with torch.inference_mode():
        start = time.process_time()
        for _ in range(n_calls):
            backend.forward(z, t, condition)
    return (time.process_time() - start) * n_rows / (n_calls * BATCH)


def spread_of(values):
    """Return the median, and the least and the largest value."""
    return [statistics.median(values), min(values), max(values)]


def embedded_rows(repeats):
    """Total CPU time over that in the network, and over that of a bare network in full batches."""
    images = load_scenes("test").images
    cases = {key: embedded(key[0]) for key in EMBEDDED}
    times, bare = {key: [] for key in cases}, {key: [] for key in cases}
    for watched in cases.values():
        watched.shape = watched.classifier.encode(images[:1]).values.shape[1:]
        watched.predict(images[:1])
    for _ in range(repeats):
        for key, watched in cases.items():
            total, spent = watched.predict(images[: key[1]])
            n_rows, n_calls = sum(watched.rows), len(watched.rows)
            times[key].append(total / spent)
            bare[key].append(total / bare_seconds(watched, n_rows))
            watched.mean_rows = n_rows / n_calls
    return {
        (f"{key[0]}", f"{key[1]}", EMBEDDED[key]): {
            "in": spread_of(times[key]),
            "bare": spread_of(bare[key]),
            "mean": watched.mean_rows,
        }
        for key, watched in cases.items()
    }


def instant_rows(repeats):
    """Seconds of bookkeeping per image, alone and in a group of four."""
    cases = {key: instant(*key, spread=0.05) for key in INSTANT}
    found = {(key, n): [] for key in cases for n in (1, 4)}
    for _ in range(repeats):
        for key, n in found:
            total, spent = cases[key].predict(np.zeros((n, 4), np.float32))
            found[key, n].append((total - spent) / n)
    return {
        (f"{key[0]:,}", f"{key[1]:,}", f"{n}", INSTANT[key] if n == 1 else "-"): {
            "seconds": spread_of(seconds)
        }
        for (key, n), seconds in found.items()
    }


def many_rows(repeats):
    """Bookkeeping per image of 10 classes, as a ratio to that of 100 images in the same repeat."""
    watched = instant(10, 200, spread=0.3)
    watched.predict(np.zeros((50, 4), np.float32))
    seconds = {n: [] for n in MANY}
    for _ in range(repeats):
        for n in MANY:
            total, spent = watched.predict(np.zeros((n, 4), np.float32))
            seconds[n].append((total - spent) / n)
    return {
        f"{n:,}": {
            "ms": 1e3 * statistics.median(seconds[n]),
            "ratio": spread_of([a / b for a, b in zip(seconds[n], seconds[100], strict=True)]),
        }
        for n in MANY
    }


def full_rows():
    """Rows per call, as shares of a full batch, before the last tenth of all rows."""
    found = {}
    for n_classes, n_images in FULL:
        watched = instant(n_classes, 60, spread=0.3, shape=SCENE)
        X = np.random.default_rng(0).normal(size=(n_images, *SCENE)).astype(np.float32)
        watched.predict(X)
        rows = np.array(watched.rows)
        early = rows[rows.cumsum() <= 0.9 * rows.sum()]
        found[f"{n_classes}", f"{n_images}"] = {"filled": 100 * early.mean() / BATCH}
    return found


class SimulatedDevice(ErrorSource):
    """Errors that are random numbers, ready when a device that works in order would have them."""

    rows_wanted, batch_rows, few_rows = 8 * BATCH, BATCH, BATCH // 4

    def __init__(self, n_classes, n_images, seconds_per_row, steps_at_once):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(n_images, n_classes, DRAWS_OF_STEPS, generator=generator)
        self.errors = 5 + noise + 0.3 * torch.rand(n_images, n_classes, 1, generator=generator)
        self.n_prompts, self.seconds_per_row = n_classes, seconds_per_row
        self._steps_at_once = steps_at_once
        self.free_at = self.busy = 0.0

    @property
    def steps_at_once(self):
        return self._steps_at_once

    def begin(self, requests):
        seconds = self.seconds_per_row * sum(request.n_rows for request in requests)
        ready = self.free_at = max(time.perf_counter(), self.free_at) + seconds
        self.busy += seconds

        def answer():
            time.sleep(max(0.0, ready - time.perf_counter()))
            draws = [slice(r.start, r.start + r.n_draws) for r in requests]
            return [
                self.errors[r.image][r.prompts, own] for r, own in zip(requests, draws, strict=True)
            ]

        return answer

    def evaluate(self, requests):
        return self.begin(requests)()

    def release(self, image):
        pass


def steps_rows(repeats):
    """Wall-clock time of a race over that of the simulated device, with one step and with two."""
    found = {}
    for n_classes, n_images in STEPS:
        scoring = Scoring(torch.ones(100), torch.zeros(n_classes), torch.arange(n_classes))
        ratios = {1: [], 2: []}
        for _ in range(repeats):
            for steps_at_once, own in ratios.items():
                device = SimulatedDevice(n_classes, n_images, 2e-4, steps_at_once)
                pruner = RacingPruner(max_draws=DRAWS_OF_STEPS)
                sampler = StratifiedSampler()
                tape = DrawTape.of(sampler, NoiseSchedule.flow(100), 0, DRAWS_OF_STEPS)
                start = time.perf_counter()
                for _result in run_race(device, tape, pruner, scoring, range(n_images)):
                    pass
                own.append((time.perf_counter() - start) / device.busy)
        found[f"{n_classes}", f"{n_images}"] = {
            "one": spread_of(ratios[1]),
            "two": spread_of(ratios[2]),
        }
    return found


PAGE = """# What a race costs beyond its network

CPU time (`time.process_time`), one thread, interleaved, one process; median (least to largest) of
{repeats} repeats. Seed 0, default settings. Nothing was chosen on these figures. Ratios do not
depend on how fast the machine is, but somewhat on how busy it is.

## The embedded network

The first test scenes. *In the network*: total time over the time inside `backend.forward` in the
same run. *Bare*: total time over that of a loop of full batches of {batch} for the same rows; the
encoding of images and of prompts is part of the total. A call with few rows takes nearly as long as
one with more, so that images few in number cost more over bare.

{embedded}

## A network that costs nothing

1,000 classes that differ too little to be told apart: nearly all take part to the last draw, the
worst case. CPU seconds per image beyond the network.

{instant}

10 classes, `max_draws=200`; milliseconds per image beyond the network, and the ratio to 100 images.

{many}

## How full batches are

Mean rows of a call over the {batch} of a full batch, up to nine tenths of all rows;
`max_draws=60`, latents of 4 x 8 x 8. With ten classes and 64 images, 51 images fill a step; the 13
that are left run at the end, in batches of 87 rows.

{full}

## Two steps under way

A simulated device that takes 0.2 ms a row, without the host: wall-clock time of a race over that of
the device, if the host waits for each step, and if the device has a second step to work on while
the host judges. A second step begins only if it is full, which takes images enough for two: 100
images of ten classes are too few. On a CUDA device, two steps are under way; on a CPU, where the
host is the device, one.

{steps}
"""


def page(repeats):
    ranged = "{:.2f}"
    return PAGE.format(
        repeats=repeats,
        batch=BATCH,
        embedded="\n".join(
            as_table(
                ["classes", "images", "in the network, at first"],
                {
                    "in the network": ("in", ranged),
                    "bare": ("bare", ranged),
                    "mean batch": ("mean", "{:.0f}"),
                },
                embedded_rows(repeats),
            )
        ),
        instant="\n".join(
            as_table(
                ["classes", "draws", "images", "seconds, at first"],
                {"seconds per image": ("seconds", ranged)},
                instant_rows(repeats),
            )
        ),
        many="\n".join(
            as_table(
                ["images"],
                {"ms per image": ("ms", "{:.1f}"), "ratio": ("ratio", ranged)},
                many_rows(repeats),
            )
        ),
        steps="\n".join(
            as_table(
                ["classes", "images"],
                {"one step": ("one", ranged), "two steps": ("two", ranged)},
                steps_rows(repeats),
            )
        ),
        full="\n".join(
            as_table(["classes", "images"], {"filled, %": ("filled", "{:.1f}")}, full_rows())
        ),
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/speed.md"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    command = [] if argv is None and options.repeats == 3 else ["--repeats", f"{options.repeats}"]
    write_page(options.output, page(options.repeats), command)


if __name__ == "__main__":
    main()
