"""Measure score_dataset with several actors, against one process, and its cost model.

Needs Ray, and ps. Writes docs/benchmarks/scale.md:

    python benchmarks/scale.py --images 60 --actors 1 2 4 --tiny 100000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import ray
import ray.data
import torch
from report import as_table, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.distributed import score_dataset
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BATCH, BLOCK = 32, 16
REPEATS = 3


def dataset(images):
    return ray.data.from_items([{"id": i, "image": image} for i, image in enumerate(images)])


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def tiny_classifier():
    """Four classes of 2 x 2 pictures, so that bookkeeping is what counts."""
    backend = FunctionBackend(
        lambda z, t, c: z * c[:, None, None, None] / 4,
        schedule=NoiseSchedule.flow(100),
        input_shape=(1, 2, 2),
    )
    options = {"pruner": NoPruning(8), "random_state": 0, "batch_size": 512, "verbose": 0}
    return DiffusionClassifier(backend, **options).fit(None, [0, 1, 2, 3])


class PeakMemory(threading.Thread):
    """Peak resident memory of the largest actor, in MiB, sampled every half second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.done = 0.0, threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            listed = subprocess.run(
                ["ps", "-eo", "rss=,args="], capture_output=True, text=True
            ).stdout
            sizes = [int(line.split()[0]) for line in listed.splitlines() if "MapWorker" in line]
            self.peak = max([self.peak, *(size / 1024 for size in sizes)])

    def stop(self):
        self.done.set()
        self.join()
        return self.peak


def score_tiny(n_images, n_actors):
    """Return seconds and the peak memory of an actor for many tiny images."""
    clf = tiny_classifier()
    ids = ray.data.range(n_images)

    def draw(batch):
        levels = (batch["id"] % 251).astype(np.uint8)
        return batch | {"image": np.repeat(levels, 12).reshape(-1, 2, 2, 3)}

    images = ids.map_batches(draw, batch_size=1000)
    memory = PeakMemory()
    memory.start()
    each = min(1.0, os.cpu_count() / n_actors)
    options = {"concurrency": n_actors, "num_cpus": each, "block_rows": 1000, "top": 1}
    taken, n_rows = timed(lambda: count_labels(score_dataset(clf, images, **options)))
    assert n_rows == n_images
    return taken, memory.stop()


def count_labels(scored):
    return sum(len(batch["label"]) for batch in scored.iter_batches(batch_size=None))


def spread(values):
    """Format a median with its range."""
    return [float(np.median(values)), float(np.min(values)), float(np.max(values))]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--tiny", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/scale.md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    n = args.images
    images = list(load_scenes("test", n_samples=3 * n).images)
    clf = DiffusionClassifier(random_state=0, batch_size=BATCH, device="cpu", verbose=0)
    clf.fit(None, DIGITS)
    # one more than there are, for Ray's readers, which have little to do
    ray.init(num_cpus=os.cpu_count() + 1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def by_actors(n_actors, count):
        each = min(1.0, os.cpu_count() / n_actors)
        options = {"concurrency": n_actors, "num_cpus": each, "block_rows": BLOCK}
        return lambda: score_dataset(clf, dataset(images[:count]), **options).take_all()

    rates = {"one process": [], **{f"actors: {k}": [] for k in args.actors}}
    startups = {name: [] for name in rates}
    evaluations, labels = None, None
    for _ in range(REPEATS):  # interleaved, so that a slow minute slows all
        for name, k in zip(rates, [None, *args.actors], strict=True):
            ways = [
                (lambda count=count: clf.errors(np.stack(images[:count]))) if k is None
                else by_actors(k, count)
                for count in (n, 3 * n)
            ]  # fmt: skip
            (short, _), (long, result) = timed(ways[0]), timed(ways[1])
            rates[name].append(2 * n / (long - short))
            startups[name].append(short - (long - short) / 2)
            if k is None:
                evaluations = result.n_evaluations
                labels = clf.predict(result).tolist()
            else:
                answers = {row["id"]: row for row in result}
                assert [answers[i]["label"] for i in range(3 * n)] == labels
                assert [answers[i]["n_evaluations"] for i in range(3 * n)] == evaluations.tolist()
    base = np.array(rates["one process"])
    rows = {
        name: {
            "rate": spread(values),
            "speed": spread(np.array(values) / base),
            "startup": spread(startups[name]),
        }
        for name, values in rates.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        clf.set_params(memory=folder).errors(np.stack(images))
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    tiny = {n: score_tiny(n, 2) for n in (args.tiny // 10, args.tiny)}
    ray.shutdown()
    text = [
        "# Actors of Ray on one machine",
        "",
        f"The embedded model, ten classes, racing, {os.cpu_count()} CPU cores, one thread each. "
        f"Images per second beyond start-up: {n} and {3 * n} images, the difference of the times. "
        f"Blocks of {BLOCK} images, batches of {BATCH} rows; {REPEATS} runs, interleaved: median, "
        "smallest and largest. All answers and evaluations equal those of one process.",
        "",
        *as_table(
            ("run",),
            {
                "images per second": ("rate", "{:.2f}"),
                "times one process": ("speed", "{:.2f}"),
                "start-up, s": ("startup", "{:.1f}"),
            },
            rows,
        ),
        "",
        f"The store of these {3 * n} images holds {evaluations.sum():,} errors in {stored:,} "
        f"bytes: {stored / evaluations.sum():.1f} bytes per error, "
        f"{stored / (3 * n) / 1000:.1f} kB per image.",
        "",
        "## Many tiny images",
        "",
        "Pictures of 2 x 2 pixels, four classes, 8 draws, two actors, blocks of 1,000 images; the "
        "network does next to nothing, so that this measures the bookkeeping.",
        "",
        *as_table(
            ("images",),
            {
                "seconds": ("seconds", "{:.0f}"),
                "images per second": ("rate", "{:.0f}"),
                "peak memory of an actor, MiB": ("memory", "{:.0f}"),
            },
            {
                f"{n:,}": {"seconds": taken, "rate": n / taken, "memory": memory}
                for n, (taken, memory) in tiny.items()
            },
        ),
        "",
    ]
    write_page(args.output, "\n".join(text), argv)


if __name__ == "__main__":
    main()
