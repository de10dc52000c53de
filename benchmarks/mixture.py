"""Compare pruners and weightings on 1,000 Gaussian-mixture classes in 256 dimensions.

Noise predictions are exact, so no network is needed. For every image, the full grid of errors
(1,000 classes x 1,000 draws) is computed and each pruner races on it: 250 images with uniform
weights, 50 with other weights. Writes docs/benchmarks/mixture.md:

    python benchmarks/mixture.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bounds import bound_figures
from joblib import Parallel, delayed
from pictures import draw_page
from report import as_table, interval, write_page
from sklearn.base import clone

from diffusion_classifier.backends.exact import GaussianMixtureBackend
from diffusion_classifier.learner import FitRecord
from diffusion_classifier.pruners import (
    PairedTestPruner,
    RacingPruner,
    StagedPruner,
    ThresholdPruner,
)
from diffusion_classifier.race import DrawTape, run_race
from diffusion_classifier.race.recorded import RecordedErrors
from diffusion_classifier.samplers import ImportanceSampler, StratifiedSampler
from diffusion_classifier.scoring import WEIGHTINGS, Scoring

K, COMPONENTS, FEATURES, DRAWS, ROUND = 1000, 2, 256, 1000, 2
SPREAD = 0.255  # standard deviation of the components' means, in units of a component's
PUBLISHED = 124_500  # evaluations of the published ImageNet schedule, as counted by its script
LOG_PRIOR = torch.full((K,), -np.log(K), dtype=torch.float64)
SAMPLERS = {
    "uniform": StratifiedSampler(ROUND, antithetic=True),
    "importance": ImportanceSampler(ROUND, antithetic=True),
}
N_JOBS = 2


def make_backend():
    """Make the classes, the same for every seed."""
    means = SPREAD * np.random.default_rng(0).standard_normal((K, COMPONENTS, FEATURES))
    return GaussianMixtureBackend(means, 1.0).fit(None, np.arange(K))


def take_draws(backend, sampler, seed):
    """Take all draws; return their tape and noise."""
    tape = DrawTape(sampler.rounds(backend.schedule, seed), DRAWS)
    rounds = [tape[number] for number in range(DRAWS // ROUND)]
    return tape, torch.cat([draws.noise((FEATURES,)) for draws in rounds]).double()


def full_errors(backend, x, timesteps, noise):
    """Compute the errors [K, J] of one latent [F] for all classes at once, by matrix products."""
    alpha, sigma = (level[:, None] for level in backend.schedule.at(timesteps))
    z = alpha * x + sigma * noise
    means = backend.means_.transpose(0, 1)  # [M, K, F]
    inverse = 1 / (alpha**2 * backend.variances_[0, 0] + sigma**2)  # [J, F]
    squares = (means**2) @ inverse.T  # [M, K, J]
    log_joint = means @ (alpha * z * inverse).T - 0.5 * alpha.T**2 * squares
    share = log_joint.softmax(0)
    rest = noise - sigma * z * inverse
    linear = (share * (means @ (rest * inverse).T)).sum(0)
    own = (share**2 * ((means**2) @ (inverse**2).T)).sum(0)
    cross = 2 * share[0] * share[1] * ((means[0] * means[1]) @ (inverse**2).T)
    scale = (alpha * sigma).T
    return ((rest**2).sum(1) + 2 * scale * linear + scale**2 * (own + cross)).float()


def check_errors(backend, x, timesteps, noise, errors):
    """Check the errors from matrix products against the backend's."""
    classes = torch.tensor([0, 1, 500, 999])
    alpha, sigma = backend.schedule.at(timesteps[:1])
    z = (alpha * x + sigma * noise[0]).expand(len(classes), -1)
    condition = backend.encode_classes(classes.tolist(), [""] * len(classes))
    predicted = backend.forward(z, timesteps[:1].expand(len(classes)), condition)
    expected = ((noise[0] - predicted) ** 2).sum(1).float()
    torch.testing.assert_close(errors[classes, 0], expected, rtol=1e-4, atol=1e-4)


def race(errors, tape, pruner, scoring):
    """Race one image; return the predicted class and the number of evaluations."""
    (result,) = run_race(RecordedErrors(errors[None]), tape, pruner, scoring, [0])
    n = result.errors.shape[1]
    scored = scoring.contributions(result.errors, tape.timesteps[:n], tape.density[:n]).mean(1)
    return int(scored.masked_fill(~result.active, torch.inf).argmin()), result.n_evaluations


def make_record(backend, sampler, latents, y, seed):
    """Record the full errors of labelled images, for strategies to learn from."""
    tape, noise = take_draws(backend, sampler, seed)
    errors = torch.stack([full_errors(backend, x, tape.timesteps, noise) for x in latents])
    check_errors(backend, latents[0], tape.timesteps, noise, errors[0])
    return FitRecord(
        errors, y, torch.arange(K), tape.timesteps, tape.density, tape.round_of, LOG_PRIOR,
        backend.schedule, "epsilon",
    )  # fmt: skip


def make_contestants(record, weightings):
    """Yield ((weighting, pruner) names, scoring, pruner), fitted on the record if they learn."""
    for name in weightings:
        weighting = WEIGHTINGS[name]().learn(record)
        weights = weighting.weights(record.schedule, record.prediction_type)
        scoring = Scoring(weights, LOG_PRIOR, torch.arange(K))
        for pruner_name, pruner in {
            "staged 50/100/500": StagedPruner((50, 100, 500), (500, 50, 10), max_draws=DRAWS),
            "racing, unlearned": RacingPruner(max_draws=DRAWS),
            "racing": RacingPruner(max_draws=DRAWS).learn(record, weights),
            "paired, p = 2e-3": PairedTestPruner(max_draws=DRAWS),
            "paired, p = 0.01, from 6": PairedTestPruner(6, p_value=0.01, max_draws=DRAWS),
            "threshold": ThresholdPruner(max_draws=DRAWS).learn(record, weights),
        }.items():
            yield (name, pruner_name), scoring, pruner


def measure(sampler_name, weightings, n_images, n_fit, seed):
    """Race all contestants.

    Rows are evaluations, whether the answer is that of the full grid, whether it is right, whether
    that of the full grid is right, and the lower bound on evaluations.
    """
    torch.set_num_threads(1)
    backend, sampler = make_backend(), SAMPLERS[sampler_name]
    X, y = backend.sample(n_fit + n_images, random_state=seed + 1)
    latents, y = backend.encode_images(torch.as_tensor(X)), torch.as_tensor(y)
    labelled = latents[:n_fit], y[:n_fit]
    if isinstance(sampler, ImportanceSampler):
        pilot = make_record(backend, StratifiedSampler(ROUND, antithetic=True), *labelled, seed)
        sampler = clone(sampler).learn(pilot, torch.ones(backend.schedule.n_timesteps))
    contestants = list(make_contestants(make_record(backend, sampler, *labelled, seed), weightings))
    tape, noise = take_draws(backend, sampler, seed)
    rows = {key: [] for key, *_ in contestants}
    for number in range(n_fit, n_fit + n_images):
        errors = full_errors(backend, latents[number], tape.timesteps, noise)
        bounds = {}
        for key, scoring, pruner in contestants:
            found = scoring.contributions(errors, tape.timesteps, tape.density)
            if key[0] not in bounds:
                means = found.reshape(K, -1, ROUND).mean(2).numpy()
                bounds[key[0]] = bound_figures(means, ROUND)["bound"]
            full, truth = int(found.mean(1).argmin()), int(y[number])
            answer, spent = race(errors, tape, pruner, scoring)
            right = answer == full, answer == truth, full == truth
            rows[key].append((spent, *right, bounds[key[0]]))
    return {(sampler_name, *key): np.array(row, float) for key, row in rows.items()}


def measure_all(weightings, n_images, n_fit, seeds):
    """Collect the rows of all seeds and samplers, with the seed as last column."""
    arguments = [(s, weightings, n_images, n_fit, seed) for seed in seeds for s in SAMPLERS]
    found = {}
    for (*_, seed), part in zip(
        arguments, Parallel(N_JOBS)(delayed(measure)(*a) for a in arguments), strict=True
    ):
        for key, rows in part.items():
            found.setdefault(key, []).append(np.column_stack([rows, np.full(len(rows), seed)]))
    return {key: np.concatenate(parts) for key, parts in found.items()}


def summarise(rows):
    spent, agree, right, full_right, bound, seeds = rows.T
    clusters = seeds if len(np.unique(seeds)) > 1 else None
    return {
        "evaluations": interval(np.mean, spent, clusters=clusters),
        "of_published": float(spent.mean() / PUBLISHED),
        "of_bound": interval(lambda s, b: s.mean() / b.mean(), spent, bound, clusters=clusters),
        "differs": interval(np.mean, 1 - agree, clusters=clusters),
        "right": float(right.mean()),
        "full_right": float(full_right.mean()),
    }


COLUMNS = {
    "evaluations per image": ("evaluations", "{:,.0f}"),
    "of published": ("of_published", "1/{:.1f}"),
    "of the bound": ("of_bound", "{:.2f}"),
    "differs from the full grid": ("differs", "{:.1%}"),
    "accuracy": ("right", "{:.1%}"),
    "of the full grid": ("full_right", "{:.1%}"),
}


def report(deep, wide, args, seconds):
    """Format the results as Markdown."""
    keys = ("timesteps", "weighting", "pruner")
    return "\n".join(
        [
            f"# {K:,} mixture classes in {FEATURES} dimensions",
            "",
            "Exact noise predictions. Every race has the same draws, antithetic in rounds of "
            f"{ROUND} (one timestep). The published ImageNet schedule counts {PUBLISHED:,} "
            "evaluations per image; as nested stages (*staged*) it takes 100,000. The full grid "
            f"takes {K * DRAWS:,}, with the same draws and weights. Sampler, fitted weights, "
            f"racing variance and threshold are learned from {args.fit_images} further images of "
            "the same seed. *Of the bound*: relative to a lower bound on the evaluations of races "
            "that err in 5 % on either side and know all variances, for the same draws and weights "
            "(benchmarks/bounds.py); it does not count that evaluations come in whole rounds. "
            "Intervals are 95 %, bootstrapped. "
            f"{seconds / 60:.0f} minutes on 2 CPU cores.",
            "",
            "![Evaluations, and answers unlike the full grid's](mixture.png)",
            "",
            f"## {args.images} images x {args.seeds} seeds of images and draws",
            "",
            "Intervals over whole seeds.",
            "",
            *as_table(keys, COLUMNS, deep),
            "",
            f"## Every weighting, {args.images} images, one seed",
            "",
            *as_table(keys, COLUMNS, wide),
            "",
        ]
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50, help="per seed")
    parser.add_argument("--fit-images", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/mixture.md"))
    args = parser.parse_args(argv)
    start = time.perf_counter()
    deep = measure_all(("uniform",), args.images, args.fit_images, range(args.seeds))
    others = tuple(name for name in WEIGHTINGS if name not in ("uniform", "native"))
    wide = measure_all(others, args.images, args.fit_images, [args.seeds])
    deep, wide = ({key: summarise(rows) for key, rows in part.items()} for part in (deep, wide))
    text = report(deep, wide, args, time.perf_counter() - start)
    write_page(args.output, text, argv)
    draw_page(args.output)


if __name__ == "__main__":
    main()
