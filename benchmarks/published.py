"""Compare the published search with the default race, by time and by rows through the network.

The published search (Li et al., arXiv 2303.16203, section 3.3 and its script) is written as plain
loops: one image at a time, batches of 32 rows, its own schedules. Networks are small, with as many
classes as the data sets of these schedules. About ten minutes on one core; one thread. Writes
docs/benchmarks/published.md:

    python benchmarks/published.py
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mixture import K, make_backend
from report import as_table, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.pruners import StagedPruner
from diffusion_classifier.samplers import EvenSampler
from diffusion_classifier.utils.intervals import wilson

BATCH = 32  # rows, the script's default
N_PETS = 37


class Schedule(NamedTuple):
    """How many timesteps each stage's grid has, and how many classes go on after it."""

    stages: tuple[int, ...]
    keep: tuple[int, ...]


CIFAR10 = Schedule((50, 500), (5, 1))
PETS = Schedule((25, 250), (5, 1))
IMAGENET = Schedule((50, 100, 500, 1000), (500, 50, 10, 1))


class Case(NamedTuple):
    """A fitted classifier, the published schedule for so many classes, images, their classes."""

    schedule: Schedule
    classifier: DiffusionClassifier
    images: np.ndarray
    true: np.ndarray


def make_case(schedule, labels, images, true, backend=None):
    clf = DiffusionClassifier(backend, random_state=0, verbose=0).fit(None, labels)
    return Case(schedule, clf, images, np.asarray(true))


def make_cases(n_images):
    """Make ten digits, 37 coloured digits and the 1,000 classes of mixture.py."""
    scenes = load_scenes("test")
    digits = scenes.digit
    pairs = np.array([f"{c} {d}" for c, d in zip(scenes.color, digits, strict=True)])
    some = np.random.default_rng(0).permutation(np.unique(pairs))[:N_PETS]
    known = np.flatnonzero(np.isin(pairs, some))[:n_images]
    backend = make_backend()
    X, y = backend.sample(n_images, random_state=1)
    return {
        "CIFAR-10": make_case(CIFAR10, DIGIT_NAMES, scenes.images[:n_images], digits[:n_images]),
        "Pets": make_case(PETS, some, scenes.images[known], pairs[known]),
        "ImageNet": make_case(IMAGENET, np.arange(K), X, y, backend),
    }


@torch.inference_mode()
def search(case, images):
    """Search as published, in plain loops; return the answers and the number of rows."""
    clf, (stages, keep) = case.classifier, case.schedule
    backend, labels = clf.backend_, clf.classes_.tolist()
    if hasattr(backend, "center_"):  # reads rows of numbers
        latents = torch.as_tensor((images - backend.center_) / backend.scale_)
    else:
        latents = clf.encode(images).values
    condition = backend.encode_classes(labels, [clf.prompts_[label][0] for label in labels])
    step = 1000 // stages[-1]
    grid = np.arange(step // 2, 1000, step)[: stages[-1]]
    generator, answers, n_rows = torch.Generator().manual_seed(0), [], 0
    noise = torch.randn(1000, *latents.shape[1:], generator=generator).to(latents)
    axes = (slice(None), *[None] * (latents.ndim - 1))
    alpha, sigma = (level.to(latents)[axes] for level in backend.schedule.at(torch.arange(1000)))
    for x in latents:
        errors = torch.full((len(labels), 1000), torch.nan)
        remaining, taken = torch.arange(len(labels)), set()
        for n, n_keep in zip(stages, keep, strict=True):
            stride = len(grid) // n
            fresh = [t for t in grid[stride // 2 :: stride][:n].tolist() if t not in taken]
            taken.update(fresh)
            rows = torch.cartesian_prod(torch.tensor(fresh), remaining)
            for batch in rows.split(BATCH):
                t, p = batch.unbind(1)
                output = backend.forward(alpha[t] * x + sigma[t] * noise[t], t, condition[p])
                errors[p, t] = (output - noise[t]).square().flatten(1).sum(1).float()
            n_rows += len(rows)
            best = errors[remaining].nanmean(1).argsort()[:n_keep]
            remaining = remaining[best]
        answers.append(labels[int(remaining[0])])
    return answers, n_rows


def staged(case, images):
    """Search as published, by this library."""
    stages, keep = case.schedule
    sizes, taken = [], 0
    for draws in EvenSampler(stages).rounds(case.classifier.backend_.schedule, 0):
        taken += len(draws)
        sizes.append(taken)
    pruner = StagedPruner(n_draws=sizes[:-1], keep=keep[:-1], max_draws=sizes[-1])
    options = case.classifier.get_params(deep=False) | {
        "sampler": EvenSampler(stages),
        "pruner": pruner,
    }
    return predict(DiffusionClassifier(**options).fit(None, case.classifier.classes_), images)


def race(case, images):
    """Predict with the default settings."""
    return predict(case.classifier, images)


def predict(clf, images):
    table = clf.errors(images)
    return clf.predict(table).tolist(), int(table.n_evaluations.sum())


WAYS = {"loops": search, "staged": staged, "race": race}


def timed(way, case, images):
    start = time.process_time()
    answers, n_rows = way(case, images)
    return time.process_time() - start, answers, n_rows


def figures(case, n_blocks):
    """Run the three ways on blocks of images in turn."""
    seconds = {way: [] for way in WAYS}
    rows, answers = {way: [] for way in WAYS}, {way: [] for way in WAYS}
    for way in WAYS.values():
        way(case, case.images[:1])
    for block in np.array_split(np.arange(len(case.images)), n_blocks):
        for name, way in WAYS.items():
            spent, found, n_rows = timed(way, case, case.images[block])
            seconds[name].append(spent)
            answers[name] += found
            rows[name].append(n_rows)
    right = {way: np.array(found) == case.true for way, found in answers.items()}
    same = np.array(answers["race"]) == np.array(answers["loops"])
    per_image = {way: sum(n) / len(case.images) for way, n in rows.items()}
    return {
        "loops_rows": per_image["loops"],
        "race_rows": per_image["race"],
        "rows": per_image["loops"] / per_image["race"],
        "time": ratios(seconds["loops"], seconds["race"]),
        "staged": ratios(seconds["loops"], seconds["staged"]),
        "loops_right": share(right["loops"]),
        "race_right": share(right["race"]),
        "same": share(same),
    }


def ratios(of, to):
    """Return the ratio of the sums, and its least and largest value among the blocks."""
    each = np.array(of) / np.array(to)
    return [sum(of) / sum(to), each.min(), each.max()]


def share(hits):
    """Return a share in percent with its Wilson interval."""
    n = int(np.sum(hits))
    return [100 * end for end in wilson(n, len(hits))]


PAGE = """# The published search against the default race

CPU time of whole predictions (`time.process_time`), one thread, one process, the three ways in
turn on each of {n_blocks} blocks of images; {n_images} images per row. *Loops* is the published
search in plain PyTorch: one image at a time, batches of {batch} rows, the published schedule of the
data set named. *Race* is `DiffusionClassifier(random_state=0)` as it is, unlearned. Time ratios are
those of the sums (least to largest of the blocks), shares have 95 % Wilson intervals. Nothing was
chosen on these figures.

The data sets stand for their schedules and numbers of classes only: CIFAR-10 is ten digits and Pets
37 coloured digits, both for the embedded network; ImageNet is the 1,000 classes of
[mixture](mixture.md) with exact noise predictions, on one of the cheapest networks there are, so
that its time is mostly bookkeeping.

{time}

{answers}

*Staged* is the same search by this library, with `EvenSampler` and `StagedPruner`: the same rows,
in full batches of several images.
"""


def page(n_images, n_blocks):
    found = {}
    for name, case in make_cases(n_images).items():
        keys = (name, f"{len(case.classifier.classes_):,}")
        found[keys] = figures(case, n_blocks)
        print(keys, found[keys], flush=True)
    keys = ["schedule of", "classes"]
    time_columns = {
        "rows per image, loops": ("loops_rows", "{:,.0f}"),
        "race": ("race_rows", "{:,.0f}"),
        "ratio of rows": ("rows", "{:.1f}"),
        "time, loops / race": ("time", "{:.1f}"),
        "time, loops / staged": ("staged", "{:.2f}"),
    }
    answer_columns = {
        "right, loops, %": ("loops_right", "{:.0f}"),
        "right, race, %": ("race_right", "{:.0f}"),
        "same answer, %": ("same", "{:.0f}"),
    }
    return PAGE.format(
        n_images=n_images,
        n_blocks=n_blocks,
        batch=BATCH,
        time="\n".join(as_table(keys, time_columns, found)),
        answers="\n".join(as_table(keys, answer_columns, found)),
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/published.md"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    changed = (options.images, options.blocks) != (30, 3)
    command = ["--images", f"{options.images}", "--blocks", f"{options.blocks}"] if changed else []
    write_page(options.output, page(options.images, options.blocks), command)


if __name__ == "__main__":
    main()
