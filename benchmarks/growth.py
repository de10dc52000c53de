"""Measure how time and memory of races grow with classes, images and draws.

The network costs nothing, on latents as large as those of a 256-pixel Stable Diffusion picture, so
that what is measured is all but the network. Each row is a process of its own. About five minutes
on one core; one thread. Writes docs/benchmarks/growth.md:

    python benchmarks/growth.py
"""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
import torch
from report import as_table, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner

SHAPE = (4, 32, 32)
CENTRE = (100, 16, 200)  # classes, images, draws
CASES = {
    "classes": [(10, 16, 200), CENTRE, (1000, 16, 200)],
    "images": [(100, 4, 200), CENTRE, (100, 64, 200), (100, 256, 200)],
    "draws": [(100, 16, 50), CENTRE, (100, 16, 1000)],
}
FULL = [(10, 4, 100), (10, 16, 100), (10, 16, 400), (40, 16, 100)]
SPREAD = 1.5  # of the classes' outputs, so that rivals need tens of draws


def measure(n_classes, n_images, n_draws, full):
    """Return evaluations, CPU seconds and MB of memory that one prediction adds."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    outputs = SPREAD * torch.randn(n_classes, *SHAPE, generator=generator)
    backend = FunctionBackend(
        lambda z, t, condition: outputs[condition],
        schedule=NoiseSchedule.flow(100),
        input_shape=SHAPE,
        input_kind="array",
    )
    pruner = NoPruning(max_draws=n_draws) if full else RacingPruner(max_draws=n_draws)
    clf = DiffusionClassifier(backend, random_state=0, verbose=0, batch_size=128, pruner=pruner)
    clf.fit(None, list(range(n_classes)))
    X = np.random.default_rng(0).standard_normal((n_images, int(np.prod(SHAPE))))
    X = X.astype(np.float32)
    clf.predict(X[:1])
    before, start = peak(), time.process_time()
    table = clf.errors(X)
    seconds, grown = time.process_time() - start, peak() - before
    return {
        "rows": int(table.n_evaluations.sum()),
        "us": 1e6 * seconds / int(table.n_evaluations.sum()),
        "ms": 1e3 * seconds / n_images,
        "mb": grown,
        "errors": table.errors.numel() * table.errors.element_size() / 1e6
        if isinstance(table.errors, torch.Tensor)
        else table.errors.nbytes / 1e6,
    }


def peak():
    """Return the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measured(*case):
    """Measure in a fresh process, whose peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, case)


PAGE = """# How cost grows with classes, images and draws

CPU time (`time.process_time`) and peak memory beyond that of a first prediction, each row in a
process of its own, one thread, batches of 128 rows, latents of shape {shape}. The network only
looks up an output, so this is what is paid beside a real one. One run per row. Nothing was chosen
on these figures.

## Races

Default racing from {centre}, one of the three changed at a time.
Rivals need tens of draws.

{races}

Time follows the rows through the network, and a row costs less the fuller the batches are. Memory
holds the latents, one batch of rows and the errors that are returned. More draws cost nothing where
races end before.

## The full grid

`NoPruning`: the rows are classes x images x draws.

{full}
"""

COLUMNS = {
    "rows": ("rows", "{:,.0f}"),
    "us per row": ("us", "{:.0f}"),
    "ms per image": ("ms", "{:.0f}"),
    "memory, MB": ("mb", "{:.0f}"),
    "of which errors, MB": ("errors", "{:.1f}"),
}


def rows_of(cases, full):
    found = {}
    for case in dict.fromkeys(cases):
        found[tuple(f"{n:,}" for n in case)] = measured(*case, full)
        print(case, found[tuple(f"{n:,}" for n in case)], flush=True)
    return "\n".join(as_table(["classes", "images", "draws"], COLUMNS, found))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/growth.md"))
    options = parser.parse_args(argv)
    k, n, j = CENTRE
    text = PAGE.format(
        shape=SHAPE,
        centre=f"{k} classes, {n} images and {j} draws",
        races=rows_of([case for cases in CASES.values() for case in cases], False),
        full=rows_of(FULL, True),
    )
    write_page(options.output, text, [])


if __name__ == "__main__":
    main()
