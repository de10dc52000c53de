"""Classify 200 images by digit, then the same images by colour.

The embedded model was trained on captions such as "a red seven on a blue background", not to
classify. New labels turn it into a new classifier without training:

    python examples/quickstart.py
"""

from __future__ import annotations

import argparse
import time

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import COLOR_NAMES, DIGIT_NAMES, load_scenes
from diffusion_classifier.pruners import StagedPruner

N_SHOWN = 8  # images in the figure
N_HARD = 2  # of these, the last: those with the most wrong, or least certain, answers
N_BARS = 3  # most probable classes shown per image
RIGHT, WRONG, OTHER = "#0072B2", "#D55E00", "#BBBBBB"  # told apart by colour-blind people too


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


def choose(answers, n_images):
    """Choose the images to show: the first ones, and the hardest of the others at the end."""
    n_shown = min(N_SHOWN, n_images)
    n_hard = min(N_HARD, n_images - n_shown)
    first = np.arange(n_shown - n_hard)
    lead = np.min([lead_of_truth(*answer) for answer in answers], axis=0)
    lead[first] = np.inf
    return np.concatenate([first, lead.argsort()[:n_hard]]), n_hard


def lead_of_truth(classes, probabilities, truth):
    """Return by how much the true class is ahead of the best other one; negative if behind."""
    is_true = classes == np.asarray(truth)[:, None]
    return probabilities[is_true] - np.where(is_true, 0, probabilities).max(1)


def draw_bars(axes, classes, probabilities, truth):
    """Draw the most probable classes of one image as bars, with names and numbers beside them."""
    best = probabilities.argsort()[::-1][:N_BARS]
    colors = [RIGHT if classes[k] == truth else OTHER for k in best]
    if classes[best[0]] != truth:
        colors[0] = WRONG
    axes.barh(range(len(best)), probabilities[best], color=colors)
    names = [classes[k] if classes[k] != truth else f"✓ {classes[k]}" for k in best]
    axes.set_yticks(range(len(best)), names, fontsize=8)
    for row, k in enumerate(best):
        axes.text(1.04, row, f"{probabilities[k]:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), xticks=[], ylim=(N_BARS - 0.4, -0.6))
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def draw(path, images, answers):
    """Save a grid with each image and one panel of bars per set of labels."""
    shown, n_hard = choose(answers, len(images))
    n_rows, width = -(-len(shown) // 2), 1 + len(answers)
    ratios = [1, *[1.2] * len(answers)] * 2
    figure, panels = plt.subplots(
        n_rows, 2 * width, figsize=(12, 1.3 * n_rows + 0.6), squeeze=False, layout="constrained",
        width_ratios=ratios,
    )  # fmt: skip
    figure.get_layout_engine().set(wspace=0.06)
    title = "the most probable digits and colours of each image (✓ and blue: true, orange: wrong)"
    if n_hard:
        title += (
            f"\nthe first {len(shown) - n_hard} of {len(images)} images, and the {n_hard} hardest"
        )
    figure.suptitle(title, fontsize=10)
    for panel in panels.flat:
        panel.set_axis_off()
    for place, i in enumerate(shown):
        picture, *bars = panels[place // 2, (place % 2) * width :][:width]
        picture.imshow(images[i])
        for axes, (classes, probabilities, truth) in zip(bars, answers, strict=True):
            axes.set_axis_on()
            draw_bars(axes, classes, probabilities[i], truth[i])
    figure.savefig(path, dpi=90)
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
