"""Measure the accuracy of the embedded model without pruning, with fixed seeds.

The test scenes show handwriting not used in training. The model classifies them by digit, colour
and background, and by digit on (digit, colour) pairs that were held out of training. This takes
about 1,000,000 evaluations:

    python benchmarks/accuracy.py
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from diffusion_classifier import DiffusionClassifier, __version__
from diffusion_classifier.datasets import COLOR_NAMES, DIGIT_NAMES, load_scenes
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import StratifiedSampler

SEED = 0  # for scenes and draws
COLOR, BACKGROUND = "{} digit", "digit on a {} background"
# question: (split, column of the true labels, label template, values, target accuracy)
QUESTIONS = {
    "digit": ("test", "digit", "{}", DIGIT_NAMES, 0.97),
    "colour": ("test", "color", COLOR, COLOR_NAMES, 0.99),
    "background": ("test", "background", BACKGROUND, COLOR_NAMES, None),
    "digit, unseen pairs": ("unseen_pairs", "digit", "{}", DIGIT_NAMES, 0.94),
}
SPEED_TARGET = 500  # evaluations per second on 2 CPU cores
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "scikit-learn")


def measure(question, n_images, n_draws):
    """Measure the accuracy and speed of one question, as a dict."""
    split, kind, template, values, target = QUESTIONS[question]
    scenes = load_scenes(split, n_samples=n_images, random_state=SEED)
    truth = np.array([template.format(value) for value in scenes[kind]])
    clf = DiffusionClassifier(
        sampler=StratifiedSampler(4), pruner=NoPruning(n_draws), random_state=SEED, verbose=1
    )
    clf.fit(None, [template.format(value) for value in values])
    start = time.perf_counter()
    table = clf.errors(scenes.images)
    predicted = clf.predict(table)
    seconds = time.perf_counter() - start
    right = int((predicted == truth).sum())
    interval = binomtest(right, n_images).proportion_ci(method="wilson")
    evaluations = int(table.n_evaluations.sum())
    return {
        "question": question,
        "split": split,
        "n_images": n_images,
        "n_classes": len(values),
        "right": right,
        "accuracy": right / n_images,
        "interval": [interval.low, interval.high],
        "target": target,
        "evaluations": evaluations,
        "seconds": seconds,
        "evaluations_per_second": evaluations / seconds,
    }


def setting(argv, n_draws):
    """Describe the settings and versions that the results depend on."""
    return {
        "command": shlex.join(["python", "benchmarks/accuracy.py", *argv]),
        "draws": n_draws,
        "seed": SEED,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "versions": {
            "diffusion_classifier": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def as_markdown(setting, rows):
    """Format the results as a page, with the settings needed to reproduce them."""
    lines = [
        "# Accuracy of the embedded model",
        "",
        f"Every class on each of {setting['draws']} draws, no pruning; `StratifiedSampler(4)`, "
        "default weighting and loss.",
        "Handwriting that training never saw; *unseen pairs* are (digit, colour) pairs that it "
        "never saw either.",
        "",
        "| question | classes | images | accuracy | 95 % interval (Wilson) | target | evaluations "
        "| evaluations/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        target = "" if row["target"] is None else f"≥ {row['target']:.0%}"
        lines.append(
            f"| {row['question']} | {row['n_classes']} | {row['n_images']} "
            f"| {row['accuracy']:.1%} | {low:.1%} to {high:.1%} | {target} "
            f"| {row['evaluations']:,} | {row['evaluations_per_second']:.0f} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in setting["versions"].items())
    lines += [
        "",
        f"- Speed target: ≥ {SPEED_TARGET} evaluations/s on 2 CPU cores; this was "
        f"{setting['device']}, {setting['threads']} threads.",
        f"- Seed of scenes and draws: {setting['seed']}.",
        f"- Versions: {versions}.",
        f"- Made by `{setting['command']}`.",
        "",
    ]
    return "\n".join(lines)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=300, help="images per question")
    parser.add_argument("--draws", type=int, default=100, help="draws per class")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"), help="folder")
    args = parser.parse_args(argv)

    rows = []
    for question in QUESTIONS:
        rows.append(measure(question, args.n_images, args.draws))
        row = rows[-1]
        print(
            f"{question}: {row['right']} of {args.n_images} right, "
            f"{row['evaluations_per_second']:.0f} evaluations/s",
            flush=True,
        )
    facts = setting(argv, args.draws)
    args.output.mkdir(parents=True, exist_ok=True)
    table = as_markdown(facts, rows)
    (args.output / "accuracy.md").write_text(table, encoding="utf-8")
    (args.output / "accuracy.json").write_text(
        json.dumps({**facts, "rows": rows}, indent=2) + "\n", encoding="utf-8"
    )
    print(f"\n{table}\nwrote {args.output / 'accuracy.md'}")


if __name__ == "__main__":
    main()
