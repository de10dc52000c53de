"""Measure score_dataset with several actors, against one process, and its cost model.

Needs Ray. Writes docs/benchmarks/scale.md:

    python benchmarks/scale.py --images 150 --actors 1 2 4
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import ray.data
import torch
from report import as_table, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.distributed import score_dataset

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
BATCH, BLOCK = 32, 16
REPEATS = 3


def dataset(images):
    return ray.data.from_items([{"id": i, "image": image} for i, image in enumerate(images)])


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def spread(values):
    """Format a median with its range."""
    return [float(np.median(values)), float(np.min(values)), float(np.max(values))]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/scale.md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    n = args.images
    images = list(load_scenes("test", n_samples=3 * n).images)
    clf = DiffusionClassifier(random_state=0, batch_size=BATCH, device="cpu", verbose=0)
    clf.fit(None, DIGITS)
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
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
    ]
    write_page(args.output, "\n".join(text), argv)


if __name__ == "__main__":
    main()
