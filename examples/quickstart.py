"""Classify 200 pictures by digit, then the same pictures by colour.

The model inside the package was trained on captions such as "a red seven on a blue background",
never as a classifier. Naming other labels makes it another classifier:

    python examples/quickstart.py
"""

from __future__ import annotations

import argparse
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import COLOR_NAMES, DIGIT_NAMES, load_scenes
from diffusion_classifier.pruners import StagedPruner

N_SHOWN = 8  # pictures in the figure
N_BARS = 3  # most probable classes shown of each


def classify(clf, images, truth):
    """Probabilities of the fitted classes, after printing how it went."""
    start = time.perf_counter()
    table = clf.errors(images)  # what costs; the rest is arithmetic on it
    probabilities = clf.predict_proba(table)
    seconds = time.perf_counter() - start
    accuracy = (clf.classes_[probabilities.argmax(1)] == truth).mean()
    print(
        f"{len(clf.classes_)} classes ({clf.classes_[0]}, {clf.classes_[1]}, ...): "
        f"accuracy {accuracy:.1%}, {table.n_evaluations.mean():.0f} evaluations per image, "
        f"{seconds:.1f} s",
        flush=True,
    )
    return probabilities


def draw_bars(axes, classes, probabilities, truth):
    """The most probable classes of one image, the right one in green."""
    best = probabilities.argsort()[::-1][:N_BARS]
    colors = ["tab:green" if classes[k] == truth else "tab:gray" for k in best]
    axes.barh(range(len(best)), probabilities[best], color=colors)
    for row, k in enumerate(best):
        axes.text(0.03, row, classes[k], va="center", fontsize=8)
    axes.set(xlim=(0, 1), xticks=[], yticks=[])
    axes.set_ylim(N_BARS - 0.4, -0.6)
    axes.set_title(classes[best[0]], fontsize=9)


def draw(path, images, answers):
    """Save a grid: each image, then one panel of bars per question asked of it."""
    n = min(N_SHOWN, len(images))
    width = 1 + len(answers)
    figure, panels = plt.subplots(
        -(-n // 2), 2 * width, figsize=(11, 1.4 * -(-n // 2) + 0.3), squeeze=False
    )
    for panel in panels.flat:
        panel.set_axis_off()
    for i in range(n):
        row = panels[i // 2, (i % 2) * width :][:width]
        row[0].imshow(images[i])
        for axes, (classes, probabilities, truth) in zip(row[1:], answers, strict=True):
            axes.set_axis_on()
            draw_bars(axes, classes, probabilities[i], truth[i])
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=200)
    parser.add_argument("--output", default="quickstart.png", help="figure to write")
    args = parser.parse_args(argv)

    scenes = load_scenes("test", n_samples=args.n_images)  # other people's handwriting
    by_color = [f"{color} digit" for color in COLOR_NAMES]
    clf = DiffusionClassifier(
        pruner=StagedPruner(n_draws=(8, 16), keep=(4, 2), max_draws=24), random_state=0, verbose=1
    )
    answers = []
    for labels, truth in (
        (DIGIT_NAMES, scenes.digit),
        (by_color, [f"{color} digit" for color in scenes.color]),
    ):
        clf.fit(None, labels)
        answers.append((clf.classes_, classify(clf, scenes.images, truth), truth))
    draw(args.output, scenes.images, answers)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
