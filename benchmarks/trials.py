r"""Three ideas for cheaper races that were tried, on recorded errors, and what they brought.

**Rounds at a lower resolution.** A network evaluates a smaller picture faster. Its errors could
drop classes before the first round at full size.

**Pausing classes.** A class that takes no more draws is judged by those it has. Errors of classes
on the same draw are correlated, so that the draws which others take later say something about the
paused class too (generalised least squares). If the regression on the classes that go on explains
a share R^2 of the variance of rival k, k needs only n_k of its N_k draws,

    (1 - R^2) / n_k + R^2 / max N = 1 / N_k,

with the N_k of benchmarks/bounds.py.

**Majority vote.** Each round votes for its class of least error, instead of the mean.

Writes docs/benchmarks/trials.md in about 2 minutes on one core, once the scenes of
benchmarks/race.py are recorded:

    python benchmarks/trials.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bounds import KL
from limit import Mixture
from race import N_FIT, SEED, record_tables
from report import as_table, interval, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.pruners.round_tests import round_means

SIZES = (32, 24, 16)  # pixels
ROUNDS = (1, 2, 5, 10, 25, 50, 100)


def closest_rivals(means):
    """Return differences to the winner, [K - 1, R], the rival of least mean first."""
    ahead = means - means[means.mean(1).argmin()]
    return ahead[ahead.mean(1).argsort(kind="stable")[1:]]


def try_sizes(n_images, n_draws):
    """Evaluate scenes at several sizes; return rows by size."""
    scenes = load_scenes("test", n_samples=n_images, random_state=SEED + 1)
    rows = {}
    for size in SIZES:
        clf = DiffusionClassifier(
            pruner=NoPruning(n_draws), image_size=size, random_state=SEED, verbose=0
        ).fit(None, list(DIGIT_NAMES))
        began = time.process_time()
        table = clf.errors(scenes.images)
        seconds = time.process_time() - began
        errors = torch.as_tensor(table.errors)
        means = round_means(errors.double(), torch.as_tensor(table.round_of)).numpy()
        truth = np.searchsorted(table.classes, np.array(scenes.digit))
        own = np.take_along_axis(means, truth[:, None, None], 1)
        ahead = np.stack([np.delete(d, k, 0) for d, k in zip(means - own, truth, strict=True)])
        nearest = ahead.mean(2).argmin(1)
        closest = np.take_along_axis(ahead, nearest[:, None, None], 1)[:, 0]
        rows[str(size)] = {
            "right": interval(np.mean, means.mean(2).argmin(1) == truth),
            "behind": interval(np.mean, (ahead.mean(2) < 0).sum(1)),
            "strength": interval(np.mean, closest.mean(1) / closest.std(1, ddof=1)),
            "seconds": seconds / errors.numel() * 1000,
        }
    return rows


def share_explained(target, controls):
    """Return the share of the variance of ``target`` [R] that controls [M, R] explain, adjusted."""
    design = np.column_stack([np.ones(len(target)), controls.T])
    rest = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    freedom = len(target) - design.shape[1]
    return max(1 - (rest @ rest / freedom) / target.var(ddof=1), 0.0)


def pausing_figures(means, slope, n_controls=5):
    """Compute a race's bound in rounds without and with the help of paused classes.

    ``slope`` regresses a rival's difference on that of the closest one, and is learned elsewhere.
    """
    rivals, n_rounds = closest_rivals(means), means.shape[1]
    variance = rivals.var(1, ddof=1)
    needed = np.minimum(2 * KL * variance / np.maximum(rivals.mean(1), 1e-300) ** 2, n_rounds)
    most, rest = needed.max(), np.arange(1, len(rivals))
    known, learned = np.zeros(len(rivals)), np.zeros(len(rivals))
    for k in rest:
        known[k] = share_explained(rivals[k], rivals[: min(k, n_controls)])
        learned[k] = 1 - (rivals[k] - slope * rivals[0]).var(ddof=1) / variance[k]
    spent = [
        most + needed[0] + ((1 - r2) / (1 / needed - r2 / most))[1:].clip(max=n_rounds).sum()
        for r2 in (0 * known, known, learned)
    ]
    return (*spent, known[rest].mean(), learned[rest].mean())


def try_pausing(fitted, raced):
    """Compare bounds with and without pausing, for round means [N, K, R] of two sets of images."""
    first = [closest_rivals(means) for means in fitted]
    centred = [d - d.mean(1, keepdims=True) for d in first]
    slope = sum((d[1:] * d[0]).sum() for d in centred) / sum(
        (len(d) - 1) * (d[0] ** 2).sum() for d in centred
    )
    figures = np.array([pausing_figures(means, slope) for means in raced])
    plain, known, learned, r2_known, r2_learned = figures.T

    def ratio(above, below):
        return above.mean() / below.mean()

    return {
        "r2 known": interval(np.mean, r2_known),
        "r2 learned": interval(np.mean, r2_learned),
        "known": interval(ratio, known, plain),
        "learned": interval(ratio, learned, plain),
    }


def try_votes(means, truth):
    """Compare answers by the mean and by votes of rounds, after several numbers of rounds."""
    rows = {}
    for n in ROUNDS:
        average = means[..., :n].mean(2)
        votes = means[..., :n].argmin(1)
        counts = (votes[:, None] == np.arange(means.shape[1])[:, None]).sum(2)
        best = counts == counts.max(1, keepdims=True)
        voted = np.where(best, average, np.inf).argmin(1)  # ties are decided by the mean
        mean_right, vote_right = (answer == truth for answer in (average.argmin(1), voted))
        rows[str(n)] = {
            "mean": interval(np.mean, mean_right),
            "vote": interval(np.mean, vote_right),
            "change": interval(np.mean, vote_right.astype(int) - mean_right),
        }
    return rows


SIZE_COLUMNS = {
    "accuracy": ("right", "{:.1%}"),
    "rivals ahead of the true class": ("behind", "{:.2f}"),
    "mean / deviation of the closest rival, per round": ("strength", "{:.2f}"),
    "ms per evaluation": ("seconds", "{:.2f}"),
}
PAUSING_COLUMNS = {
    "R^2, best regression": ("r2 known", "{:.2f}"),
    "R^2, learned slope": ("r2 learned", "{:.2f}"),
    "bound, best regression": ("known", "{:.2f}"),
    "bound, learned slope": ("learned", "{:.2f}"),
}
VOTE_COLUMNS = {
    "mean": ("mean", "{:.1%}"),
    "vote": ("vote", "{:.1%}"),
    "vote less mean": ("change", "{:+.1%}"),
}


def as_markdown(sizes, pausing, votes, args, seconds):
    saved = [1 - row["learned"][0] for row in pausing.values()]
    return "\n".join(
        [
            "# Three ideas that were tried and not kept",
            "",
            "In brackets: 95 % bootstrap intervals over images. One seed of images and draws. "
            f"{seconds / 60:.1f} minutes on a shared core, without the time to record scenes.",
            "",
            "## Rounds at a lower resolution",
            "",
            f"The embedded model, whose own size is 32 pixels, on {args.n_sizes} held-out scenes "
            f"with {args.n_draws} draws. A class may be dropped at a lower resolution only if its "
            "errors rank the classes as those at full size do. They do not: at 24 pixels a rival "
            "is often ahead of the true class by its mean over all draws, and at 16 pixels answers "
            "are guesses. The network was trained at one size. Networks that were trained at "
            "several may do better; they were not at hand.",
            "",
            *as_table(("pixels",), SIZE_COLUMNS, sizes),
            "",
            "## Pausing classes, and judging them by generalised least squares",
            "",
            "Bounds relative to that without pausing (1.00), after [limit](limit.md). *Best "
            "regression*: on up to 5 closer rivals, with coefficients of the image's full record, "
            "which a race does not have. *Learned slope*: on the closest rival, with one slope "
            "learned from other images. An R^2 below 0 says that the correction adds variance.",
            "",
            *as_table(("problem",), PAUSING_COLUMNS, pausing),
            "",
            "Most of the gain needs coefficients that are known in advance. One slope from other "
            f"images saves {saved[0]:.0%} and {saved[1]:.0%} of the bounds, if the closest rival "
            "is known from the start, and the promise would then rest on that slope. The image "
            "itself has a few rounds by the time its far rivals are dropped, too few for a "
            "regression.",
            "",
            "## Majority vote over rounds",
            "",
            f"Accuracy on {args.n_images:,} held-out scenes, 10 digits, by the mean of all rounds "
            "(of 2 draws) and by the class that wins most rounds. Ties of votes are decided by the "
            "mean.",
            "",
            *as_table(("rounds",), VOTE_COLUMNS, votes),
            "",
            "A vote throws away how far a class wins. No number of rounds shows a gain.",
            "",
        ]
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=1000, help="recorded scenes")
    parser.add_argument("--n-sizes", type=int, default=100, help="scenes at every size")
    parser.add_argument("--n-draws", type=int, default=20, help="draws at every size")
    parser.add_argument("--n-mixture", type=int, default=100, help="images of a mixture")
    parser.add_argument("--cache", type=Path, default=Path("build/race"), help="recorded errors")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/trials.md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    tables, digits = record_tables(N_FIT + args.n_images, args.cache)
    start, table = time.perf_counter(), tables["importance"]
    truth = np.searchsorted(table.classes, digits)
    means = round_means(
        table.scoring.contributions(
            torch.as_tensor(table.errors),
            torch.as_tensor(table.timesteps),
            torch.as_tensor(table.density),
        ),
        torch.as_tensor(table.round_of),
    ).numpy()
    votes = try_votes(means[N_FIT:], truth[N_FIT:])
    mixture = Mixture(100, SEED, 2 * args.n_mixture)
    mixed = [mixture.round_means(mixture.errors(i)) for i in range(2 * args.n_mixture)]
    pausing = {
        "10 digits": try_pausing(means[:N_FIT], means[N_FIT:]),
        "mixture of 100 classes": try_pausing(mixed[: args.n_mixture], mixed[args.n_mixture :]),
    }
    sizes = try_sizes(args.n_sizes, args.n_draws)
    text = as_markdown(sizes, pausing, votes, args, time.perf_counter() - start)
    write_page(args.output, text, argv)


if __name__ == "__main__":
    main()
