"""Classify 200 images by digit, then the same images by colour.

The embedded model was trained on captions such as "a red seven on a blue background", not to
classify. New labels turn it into a new classifier without training:

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

N_SHOWN = 8  # images in the figure
N_BARS = 3  # most probable classes shown per image


def classify(clf, images, labels, truth):
    """Return the probabilities, in the order of ``clf.classes_``, and print accuracy and cost."""
    clf.fit(None, labels)
    start = time.perf_counter()
    table = clf.errors(images)  # runs the network; the rest is cheap
    probabilities = clf.predict_proba(table)
    seconds = time.perf_counter() - start
    accuracy = (clf.classes_[probabilities.argmax(1)] == truth).mean()
    print(
        f"{len(labels)} classes ({labels[0]}, {labels[1]}, ...): "
        f"accuracy {accuracy:.1%}, {table.n_evaluations.mean():.0f} evaluations per image, "
        f"{seconds:.1f} s",
        flush=True,
    )
    return probabilities


def draw_bars(axes, classes, probabilities, truth):
    """Draw the most probable classes of one image as bars."""
    best = probabilities.argsort()[::-1][:N_BARS]
    colors = ["#8fd19e" if classes[k] == truth else "#d0d0d0" for k in best]
    axes.barh(range(len(best)), probabilities[best], color=colors)
    for row, k in enumerate(best):
        axes.text(0.03, row, classes[k], va="center", fontsize=8)
        axes.text(0.97, row, f"{probabilities[k]:.0%}", va="center", ha="right", fontsize=8)
    axes.set(xlim=(0, 1), xticks=[], yticks=[], ylim=(N_BARS - 0.4, -0.6))
    axes.set_title(classes[best[0]], fontsize=9)


def draw(path, images, answers):
    """Save a grid with each image and one panel of bars per set of labels."""
    n = min(N_SHOWN, len(images))
    n_rows, width = -(-n // 2), 1 + len(answers)
    figure, panels = plt.subplots(
        n_rows, 2 * width, figsize=(11, 1.4 * n_rows + 0.5), squeeze=False, layout="constrained"
    )
    figure.suptitle("predicted classes and their probabilities (green: the right one)", fontsize=10)
    for panel in panels.flat:
        panel.set_axis_off()
    for i in range(n):
        picture, *bars = panels[i // 2, (i % 2) * width :][:width]
        picture.imshow(images[i])
        for axes, (classes, probabilities, truth) in zip(bars, answers, strict=True):
            axes.set_axis_on()
            draw_bars(axes, classes, probabilities[i], truth[i])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=200)
    parser.add_argument("--output", default="quickstart.png", help="figure to write")
    args = parser.parse_args(argv)

    scenes = load_scenes("test", n_samples=args.n_images)  # handwriting not seen in training
    by_color = [f"{color} digit" for color in COLOR_NAMES]
    clf = DiffusionClassifier(
        pruner=StagedPruner(n_draws=(8, 16), keep=(4, 2), max_draws=24), random_state=0, verbose=1
    )
    answers = []
    for labels, truth in (
        (DIGIT_NAMES, scenes.digit),
        (by_color, [f"{color} digit" for color in scenes.color]),
    ):
        probabilities = classify(clf, scenes.images, labels, truth)
        answers.append((clf.classes_, probabilities, truth))
    draw(args.output, scenes.images, answers)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
