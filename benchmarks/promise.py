"""Measure how often racing drops the class that would win with infinitely many draws.

``RacingPruner`` promises to do so in at most a share alpha of races, asymptotically. The test
cases are simulated problems whose infinite-draw winner is known, chosen to be hard, and 20 mixture
classes whose winner is that of the exact posterior. Writes docs/benchmarks/promise.md in about 10
minutes on 2 CPU cores:

    python benchmarks/promise.py
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from report import as_table, interval, write_page

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianMixtureBackend
from diffusion_classifier.learner import FitRecord
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.pruners.racing import LEAST_DIFFERENCES
from diffusion_classifier.pruners.round_tests import RoundTest
from diffusion_classifier.samplers import StratifiedSampler

ROUND, DRAWS, GAP = 2, 200, 0.02  # GAP: the winner's lead, in standard deviations of a draw
K, FEATURES, SPREAD = 20, 32, 0.5  # mixture; SPREAD: standard deviation of the component means
MIXTURE_DRAWS, MIXTURE_SAMPLER = 1000, StratifiedSampler(4, antithetic=True)
N_JOBS = 2
RECORDED, RECORDED_DRAWS = 60, 50  # images and draws that a learned race learns from
FEWEST_RACES = 40  # per seed, where classes are many
KINDS = {  # whether the pruner is robust, and whether it learned
    "unlearned": (False, False),
    "learned": (False, True),
    "robust": (True, False),
}
USUAL = ("unlearned", "learned")


def timesteps(rng, n):
    """Draw timesteps in [0, 1), [n, DRAWS]: stratified rounds, each with a random shift."""
    shift = rng.random((n, DRAWS // ROUND, 1))
    return ((np.arange(ROUND) + shift) / ROUND).reshape(n, DRAWS)


def against_zero(difference):
    """Make two classes: the winner's errors are 0, the other's are ``difference``."""
    return np.stack([np.zeros_like(difference), difference], 1)


def behind(n_classes, gap=GAP):
    """Make mean errors with which the first class leads by ``gap``."""
    return gap * (np.arange(n_classes) > 0)[:, None]


def make_periodic(rng, n, sign):
    return against_zero(0.05 + sign * np.cos(8 * np.pi * timesteps(rng, n)))


def make_waves(rng, n):
    """Make ten classes whose errors oscillate in t, each with its own frequency."""
    u, k = timesteps(rng, n)[:, None], np.arange(10)[:, None]
    return np.where(k > 0, 0.05 + np.cos(2 * np.pi * (2 * k * u + k / 10)), 0)


def make_steep(rng, n, sign):
    """Make two classes whose difference and noise decay exponentially in t."""
    u = timesteps(rng, n)
    shape = np.exp(-3 * u) - (1 - np.exp(-3)) / 3
    return against_zero(GAP + sign * shape + 2 * np.exp(-4 * u) * rng.standard_normal(u.shape))


def make_ordered(rng, n):
    """Make one close rival and distant ones that vary more, as in real errors."""
    gap = np.array([0, 0.01, 3, 4, 5, 6, 7, 8, 9, 10])[:, None]
    return (0.5 + 0.5 * gap) * rng.standard_normal((n, 10, DRAWS)) + gap


def make_correlated(rng, n):
    common = rng.standard_normal((n, 1, DRAWS)) * np.linspace(0, 1, 10)[:, None]
    return common + 0.3 * rng.standard_normal((n, 10, DRAWS)) + behind(10)


def skewed(draw):
    """Make a class with constant errors and a rival with skewed errors of mean GAP."""
    return lambda rng, n: against_zero(GAP + draw(rng, (n, DRAWS)))


def alike(n_classes, draw, gap=GAP):
    """Make classes whose errors have the same distribution."""
    return lambda rng, n: draw(rng, (n, n_classes, DRAWS)) + behind(n_classes, gap)


def normal(rng, shape):
    return rng.standard_normal(shape)


def exponential(rng, shape):
    return rng.exponential(size=shape) - 1


def lognormal(rng, shape):
    return np.exp(rng.standard_normal(shape)) - np.exp(0.5)


def rare(p):
    """Make standardised draws that are a little below 0, except for a share p far above it."""
    return lambda rng, shape: ((rng.random(shape) < p) - p) / np.sqrt(p * (1 - p))


def one_rival(draw):
    """Make a winner with a little noise, and a rival of mean GAP."""
    return lambda rng, n: np.stack([0.1 * normal(rng, (n, DRAWS)), GAP + draw(rng, (n, DRAWS))], 1)


def shared(n_classes, draw, own):
    """Make rivals that share their errors, apart from normal noise of deviation ``own``."""

    def make(rng, n):
        common = draw(rng, (n, 1, DRAWS)) * (np.arange(n_classes) > 0)[:, None]
        return common + own * normal(rng, (n, n_classes, DRAWS)) + behind(n_classes)

    return make


def among_distant(draw):
    """Make a winner with constant errors, one close rival and eight distant ones."""

    def make(rng, n):
        gap = np.arange(1, 11)[:, None]
        errors = (0.5 + 0.5 * gap) * normal(rng, (n, 10, DRAWS)) + gap
        errors[:, 0], errors[:, 1] = 0, GAP + draw(rng, (n, DRAWS))
        return errors

    return make


def make_unequal_images(rng, n):
    """Make ten classes; one image in ten has errors that vary four times as much."""
    scale = np.where(rng.random((n, 1, 1)) < 0.1, 4, 1)
    return scale * normal(rng, (n, 10, DRAWS)) + behind(10)


PROBLEMS = {
    "periodic in t, K = 2": lambda rng, n: make_periodic(rng, n, 1),
    "minus periodic in t, K = 2": lambda rng, n: make_periodic(rng, n, -1),
    "ten frequencies in t": make_waves,
    "steep in t, K = 2": lambda rng, n: make_steep(rng, n, 1),
    "minus steep in t, K = 2": lambda rng, n: make_steep(rng, n, -1),
    "near tie, K = 2": alike(2, normal),
    "near ties, K = 10": alike(10, normal),
    "near ties, K = 100": alike(100, normal),
    "exact ties, K = 10": alike(10, normal, 0),
    "one close rival, distant ones": make_ordered,
    "correlated, K = 10": make_correlated,
    "winner varies most, K = 10": lambda rng, n: (
        np.linspace(8, 1, 10)[:, None] * normal(rng, (n, 10, DRAWS))
    ),
    "Student t, 3 degrees, K = 10": alike(10, lambda rng, shape: rng.standard_t(3, shape)),
    "exponential, K = 10": alike(10, exponential),
    "minus exponential, K = 10": alike(10, lambda rng, shape: -exponential(rng, shape)),
    "log-normal, K = 10": alike(10, lognormal),
    "exponential rival, K = 2": skewed(exponential),
    "minus exponential rival, K = 2": skewed(lambda rng, shape: -exponential(rng, shape)),
    "log-normal rival, K = 2": skewed(lognormal),
    "log-normal rival among distant ones": among_distant(lognormal),
    "rare event, 10 %, K = 2": one_rival(rare(0.1)),
    "rare event, 10 %, shared by rivals, K = 10": shared(10, rare(0.1), 0.3),
    "rare event, 5 %, K = 2": one_rival(rare(0.05)),
    "rare event, 5 %, shared by rivals, K = 10": shared(10, rare(0.05), 0.3),
    "noise shared by rivals, K = 10": shared(10, normal, 0.3),
    "noise shared by rivals, K = 100": shared(100, normal, 0.1),
    "one image in ten varies 4 times as much": make_unequal_images,
}


RARE = [name for name in PROBLEMS if "rare" in name or "log-normal" in name]


def learn(name, pruner, seed):
    """Let a pruner learn from images of a problem that are not raced."""
    rng = np.random.default_rng((seed, list(PROBLEMS).index(name), 1))
    errors = torch.as_tensor(PROBLEMS[name](rng, RECORDED)[..., :RECORDED_DRAWS])
    record = FitRecord(
        errors.float(), torch.zeros(RECORDED, dtype=torch.long), torch.arange(errors.shape[1]),
        torch.zeros(RECORDED_DRAWS, dtype=torch.long), torch.ones(RECORDED_DRAWS).double(),
        torch.arange(RECORDED_DRAWS) // ROUND, torch.zeros(errors.shape[1]).double(),
        NoiseSchedule([0.6], [0.8]), "epsilon",
    )  # fmt: skip
    return pruner.learn(record, torch.ones(1).double())


def race_problem(name, n, seed, kind="unlearned"):
    """Run n races; return whether each dropped the winner, and its evaluations."""
    torch.set_num_threads(1)
    robust, learned = KINDS[kind]
    pruner = RacingPruner(max_draws=DRAWS, robust=robust)
    if learned:
        learn(name, pruner, seed)
    rng = np.random.default_rng((seed, list(PROBLEMS).index(name)))
    errors = torch.as_tensor(np.asarray(PROBLEMS[name](rng, n), float))
    active = torch.ones(errors.shape[:2], dtype=torch.bool)
    spent, racing = torch.zeros(n), torch.arange(n)
    for stop in range(ROUND, DRAWS + 1, ROUND):
        left = active[racing]
        spent[racing] += ROUND * left.sum(1)
        last = errors[racing, :, stop - ROUND : stop]
        errors[racing, :, stop - ROUND : stop] = last.where(left[..., None], torch.nan)
        round_of = torch.arange(stop) // ROUND
        active[racing] = pruner.select(errors[racing, :, :stop], left, round_of)
        racing = racing[active[racing].sum(1) > 1]
        if not len(racing):
            break
    return ~active[:, 0].numpy(), spent.numpy()


def make_mixture(n):
    """Make the mixture's backend and sample n rows, the same for every seed of the draws."""
    means = SPREAD * np.random.default_rng(0).standard_normal((K, 2, FEATURES))
    backend = GaussianMixtureBackend(means, 1.0).fit(None, np.arange(K))
    return backend, *backend.sample(n, random_state=0)


def race_mixture(n, n_fit, seed, learned):
    """Race mixture rows; return five figures per row.

    These are whether the exact winner was dropped, whether the answer differs from the exact one,
    whether the budget was spent, whether the answer is wrong, and the number of evaluations.
    """
    torch.set_num_threads(1)
    backend, X, y = make_mixture(n_fit + n)
    clf = DiffusionClassifier(
        backend,
        weighting="likelihood",
        sampler=MIXTURE_SAMPLER,
        pruner=RacingPruner(max_draws=MIXTURE_DRAWS, learn_profile=learned),
        n_fit_images=n_fit,
        random_state=seed,
    )
    clf = clf.fit(X[:n_fit], y[:n_fit]) if learned else clf.fit(None, np.arange(K))
    table = clf.errors(X[n_fit:])
    answer, exact = clf.predict(table), backend.log_likelihood(X[n_fit:]).argmax(1)
    lost = ~table.active[np.arange(n), exact]
    cut_short = ~table.certificate.resolved
    return lost, answer != exact, cut_short, answer != y[n_fit:], table.n_evaluations


def run_all(function, n_seeds):
    """Run all seeds; return their concatenated results and the seed of each result."""
    parts = Parallel(N_JOBS)(delayed(function)(seed=seed) for seed in range(n_seeds))
    seeds = np.repeat(range(n_seeds), [len(part[0]) for part in parts])
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)], seeds


def measure_problems(n, n_seeds):
    """Race every problem; problems of many classes get fewer races, robust races are for RARE."""
    rows = {}
    for name, problem in PROBLEMS.items():
        n_classes = problem(np.random.default_rng(0), 1).shape[1]
        few = min(n, max(n * 10 // n_classes, FEWEST_RACES))
        rows[name] = {"races": few * n_seeds}
        for kind in KINDS if name in RARE else USUAL:
            (lost, spent), seeds = run_all(partial(race_problem, name, few, kind=kind), n_seeds)
            rows[name][kind] = interval(np.mean, lost, clusters=seeds)
            rows[name][f"{kind}, spent"] = float(spent.mean())
        print(name, rows[name], flush=True)
    return rows


def measure_mixture(n, n_fit, n_seeds):
    rows = {}
    for learned in (False, True):
        one = partial(race_mixture, n, n_fit, learned=learned)
        (lost, differs, cut_short, wrong, spent), seeds = run_all(one, n_seeds)
        name = "variance learned" if learned else "unlearned"
        rows[name] = {
            "lost": interval(np.mean, lost, clusters=seeds),
            "differs": interval(np.mean, differs, clusters=seeds),
            "cut_short": float(cut_short.mean()),
            "accuracy": float(1 - wrong.mean()),
            "spent": interval(np.mean, spent, clusters=seeds),
        }
        print(name, rows[name], flush=True)
    return rows


def normal_losses(ratios, n=100_000):
    """Simulate the share of winners lost, by the rivals' mean variance; the winner's is 1."""
    torch.manual_seed(0)
    differences = torch.randn(n, DRAWS // ROUND - 1).numpy()
    total, squares = differences.cumsum(1), (differences**2).cumsum(1)
    counts = np.arange(1, DRAWS // ROUND)
    variance = (squares - total**2 / counts) / np.maximum(counts - 1, 1)
    pruner, losses = RacingPruner(), {}
    test = RoundTest(pruner.alpha, pruner.tuned_round)
    for ratio in ratios:
        nu = pruner.prior_rounds * np.minimum(ratio / np.maximum(variance, 1e-30), 1)
        wrong = test.rejects(counts, total, squares, ratio, nu)
        losses[f"{ratio:g}"] = {"lost": float(wrong[:, LEAST_DIFFERENCES - 1 :].any(1).sum() / n)}
    return losses


def report(problems, normal, mixture, args, seconds):
    over = [
        f"{name} ({kind}, {row[kind][0]:.1%})"
        for name, row in problems.items()
        for kind in KINDS
        if kind in row and row[kind][1] > 0.05
    ]
    columns = {kind: (kind, "{:.1%}") for kind in USUAL}
    columns |= {f"evaluations, {kind}": (f"{kind}, spent", "{:,.0f}") for kind in USUAL}
    columns["races"] = ("races", "{:,.0f}")
    robust = {"robust": ("robust", "{:.1%}"), "evaluations": ("robust, spent", "{:,.0f}")}
    answers = {
        "exact winner dropped": ("lost", "{:.2%}"),
        "answer differs from the exact one": ("differs", "{:.2%}"),
        "budget spent": ("cut_short", "{:.1%}"),
        "accuracy": ("accuracy", "{:.1%}"),
        "evaluations per row": ("spent", "{:.0f}"),
    }
    return "\n".join(
        [
            "# The promise of racing",
            "",
            "`RacingPruner(alpha=0.05)` promises, asymptotically, that the class that would win "
            "with infinitely many draws is dropped in at most 5 % of races. Intervals are 95 %, "
            f"bootstrapped over whole seeds. {seconds / 60:.0f} minutes on 2 busy CPU cores.",
            "",
            "## Simulated problems",
            "",
            f"{args.seeds} seeds, rounds of {ROUND}, {DRAWS} draws at most. The winner leads by a "
            "hair in most problems, so that races are long. *Learned* races learn from "
            f"{RECORDED} other images of the problem with {RECORDED_DRAWS} draws, others for each "
            "seed. *Robust* races wait for 59 draws. The columns of these names are shares of "
            "races that lost the winner.",
            "",
            f"Above 5 % with the whole interval: {'; '.join(over) or 'none'}. In the problems "
            "with rare events, the winner is a little behind on most draws and far ahead on few. "
            "Before such a draw has come, nothing tells this winner from a class that is really "
            "behind. If all rivals share the event, more rivals do not help. Then only more draws "
            "do, which `robust=True` pays for, or a record of other images, from which a learned "
            "race knows that such draws exist.",
            "",
            *as_table(("problem",), columns, problems),
            "",
            "Robust races of the problems with rare events and log-normal errors, as many:",
            "",
            *as_table(("problem",), robust, {name: problems[name] for name in RARE}),
            "",
            "## Normal differences, any rivals",
            "",
            "The unlearned test uses the rivals' mean variance as a prior. Rivals may vary less "
            "than the winner, for example because they share their noise. Share of 100,000 races "
            "that lose a winner with normal differences of variance 1, when the rivals' mean "
            "variance is this:",
            "",
            *as_table(("variance of rivals",), {"winner lost": ("lost", "{:.1%}")}, normal),
            "",
            f"## {K} mixture classes in {FEATURES} dimensions",
            "",
            "`GaussianMixtureBackend`, likelihood weights: the infinite-draw answer is that of the "
            f"exact posterior. The same {args.rows:,} rows with {args.seeds} seeds of the draws, "
            f"antithetic in rounds of 4, {MIXTURE_DRAWS:,} draws at most "
            f"({K * MIXTURE_DRAWS:,} evaluations without pruning). The promise is about winners "
            "dropped; answers also differ where the budget ended a race between near ties.",
            "",
            *as_table(("racing",), answers, mixture),
            "",
        ]
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=200, help="races per problem and seed")
    parser.add_argument("--rows", type=int, default=100, help="mixture rows")
    parser.add_argument("--fit-rows", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/promise.md"))
    args = parser.parse_args(argv)
    start = time.perf_counter()
    problems = measure_problems(args.races, args.seeds)
    mixture = measure_mixture(args.rows, args.fit_rows, args.seeds)
    normal = normal_losses((0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0))
    text = report(problems, normal, mixture, args, time.perf_counter() - start)
    write_page(args.output, text, argv)


if __name__ == "__main__":
    main()
