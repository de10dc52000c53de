r"""Compare races with a lower bound on their evaluations, and say where the rest goes.

The bound and the idealised races are those of benchmarks/bounds.py.

Four problems: ten digits of the embedded model (the records of benchmarks/race.py, which are made
first if they are missing), mixtures of 100 and 1,000 classes, and the latter with a shortlist of
ten. Writes docs/benchmarks/limit.md in about 3 minutes on one core, once the scenes are recorded:

    python benchmarks/limit.py
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import mixture
import numpy as np
import torch
from bounds import ALPHA, KL, bound_figures
from race import N_DRAWS, N_FIT, record_tables
from report import as_table, interval, write_page
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends.exact import GaussianMixtureBackend
from diffusion_classifier.estimator.fitting import fit_record
from diffusion_classifier.learner import FitRecord
from diffusion_classifier.pruners import RacingPruner, RiskControlledPruner
from diffusion_classifier.pruners.round_tests import round_means
from diffusion_classifier.scoring import Scoring
from diffusion_classifier.shortlist import Shortlist

RISKS = (0.03, 0.05)  # of RiskControlledPruner
PILOT = 15  # images of a mixture that the importance sampler learns from
LOOK = 0.8  # noise of the proposer's look at an image's component; that of the image is 1
SPLITS, FITTED = 5, (100, 400)  # of scenes, to learn thresholds and to race


@dataclass
class Rows:
    """Figures per image of one problem: evaluations by name, and which answers were lost."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures):
        for name, value in figures.items():
            self.extend(name, [value])

    def extend(self, name, values):
        self.figures.setdefault(name, []).extend(np.asarray(values, dtype=float).tolist())

    def __getitem__(self, name):
        return np.array(self.figures[name])


def pruners(record, weights, max_draws, risks=RISKS):
    """Make the raced pruners; the key says what they promise."""
    found = {
        "unlearned": RacingPruner(ALPHA, max_draws=max_draws),
        "learned": RacingPruner(ALPHA, max_draws=max_draws).learn(record, weights),
    }
    for risk in risks:
        pruner = RiskControlledPruner(risk, max_draws=max_draws)
        found[f"risk {risk}"] = pruner.learn(record, weights)
    return found


def race_digits(tables, digits):
    """Race scenes of ten digits; strategies learn from the first ones."""
    table, rows = tables["importance"], Rows()
    columns = np.searchsorted(table.classes, digits)
    record = fit_record(table[:N_FIT], columns[:N_FIT])
    rest, truth, rounds = table[N_FIT:], columns[N_FIT:], torch.as_tensor(table.round_of)
    parts = map(torch.as_tensor, (rest.errors, table.timesteps, table.density))
    found = table.scoring.contributions(*parts)
    for number, means in enumerate(round_means(found, rounds).numpy()):
        rows.add(**bound_figures(means, int((rounds == 0).sum())), seed=number)
    full = found.mean(2).argmin(1).numpy()
    rows.extend("full, right", full == truth)
    for name, pruner in pruners(record, table.scoring.weights, N_DRAWS).items():
        raced = rest.race(pruner, table.scoring)
        answers = raced.log_posterior().numpy().argmax(1)
        rows.extend(name, raced.n_evaluations)
        rows.extend(f"{name}, lost", answers != full)
        rows.extend(f"{name}, right", answers == truth)
    return rows


def split_digits(tables, digits):
    """Learn thresholds from some scenes and race the others, for several random splits."""
    table, found = tables["importance"], {}
    columns = np.searchsorted(table.classes, digits)
    full = table.log_posterior().numpy().argmax(1)
    for n_fit in FITTED:
        for risk in RISKS:
            spent, lost = [], []
            for split in range(SPLITS):
                order = np.random.default_rng(split).permutation(len(table))
                fitted, raced = np.sort(order[:n_fit]), np.sort(order[n_fit:])
                pruner = RiskControlledPruner(risk, max_draws=N_DRAWS)
                pruner.learn(fit_record(table[fitted], columns[fitted]), table.scoring.weights)
                rest = table[raced].race(pruner, table.scoring)
                spent.append(rest.n_evaluations.mean())
                lost.append((rest.log_posterior().numpy().argmax(1) != full[raced]).mean())
            found[str(n_fit), f"{risk:.0%}"] = {
                "spent": [float(f(spent)) for f in (np.mean, np.min, np.max)],
                "lost": [float(f(lost)) for f in (np.mean, np.min, np.max)],
            }
    return found


class SecondLook(ClassifierMixin, BaseEstimator):
    """A proposer: the exact posterior given other measurements of the same images."""

    def __init__(self, means, measurements):
        self.means = means
        self.measurements = measurements
        self.classes_ = np.arange(len(means))

    def predict_proba(self, X):
        log_joint = [
            logsumexp(-0.5 * ((x - self.means) ** 2).sum(2) / LOOK**2, axis=1)
            for x in self.measurements
        ]
        return np.exp(log_softmax(log_joint, axis=1))


class Mixture:
    """A mixture of K classes, and one seed's images, draws and learned sampler."""

    def __init__(self, n_classes, seed, n_images):
        shape = (n_classes, mixture.COMPONENTS, mixture.FEATURES)
        self.means = mixture.SPREAD * np.random.default_rng(0).standard_normal(shape)
        self.backend = GaussianMixtureBackend(self.means, 1.0).fit(None, np.arange(n_classes))
        rng = np.random.default_rng(seed + 1)
        self.y = rng.integers(n_classes, size=n_images)
        means = self.means[self.y, rng.integers(mixture.COMPONENTS, size=n_images)]
        self.X = means + rng.standard_normal(means.shape)
        self.measurements = means + LOOK * rng.standard_normal(means.shape)
        self.latents = self.backend.encode_images(torch.as_tensor(self.X))
        self.weights = torch.ones(self.backend.schedule.n_timesteps, dtype=torch.float64)
        log_prior = torch.full((n_classes,), -math.log(n_classes), dtype=torch.float64)
        self.scoring = Scoring(self.weights, log_prior, torch.arange(n_classes))
        self.seed, self.sampler = seed, mixture.SAMPLERS["uniform"]
        self.take_draws()
        self.sampler = clone(mixture.SAMPLERS["importance"]).learn(self.record(PILOT), self.weights)
        self.take_draws()

    def take_draws(self):
        self.tape, self.noise = mixture.take_draws(self.backend, self.sampler, self.seed)

    def errors(self, number):
        """Compute the full errors [K, J] of one image."""
        latent = self.latents[number]
        return mixture.full_errors(self.backend, latent, self.tape.timesteps, self.noise)

    def round_means(self, errors):
        found = self.scoring.contributions(errors, self.tape.timesteps, self.tape.density)
        return round_means(found[None], self.tape.round_of)[0].numpy()

    def record(self, n):
        """Record the full errors of the first n images."""
        tape = self.tape
        return FitRecord(
            torch.stack([self.errors(number) for number in range(n)]),
            torch.as_tensor(self.y[:n]), self.scoring.class_of, tape.timesteps, tape.density,
            tape.round_of, self.scoring.log_prior, self.backend.schedule, "epsilon",
        )  # fmt: skip


def race_mixtures(n_classes, risks, seeds, n_fit, n_images, shortlisted=None):
    """Race images of a mixture; images, draws and what is learned differ between seeds."""
    rows = Rows()
    for seed in range(seeds):
        problem = Mixture(n_classes, seed, n_fit + n_images)
        raced = pruners(problem.record(n_fit), problem.weights, mixture.DRAWS, risks)
        for number in range(n_fit, n_fit + n_images):
            errors, truth = problem.errors(number), int(problem.y[number])
            means = problem.round_means(errors)
            full = int(means.mean(1).argmin())
            rows.add(**bound_figures(means, mixture.ROUND), **{"full, right": full == truth})
            rows.add(seed=seed)
            for name, pruner in raced.items():
                answer, spent = mixture.race(errors, problem.tape, pruner, problem.scoring)
                rows.add(**{name: spent, f"{name}, lost": answer != full})
                rows.add(**{f"{name}, right": answer == truth})
        if shortlisted is not None:
            race_shortlist(problem, raced, n_fit, shortlisted)
    return rows


def race_shortlist(problem, raced, n_fit, rows):
    """Race the same images with a shortlist of ten, by the estimator."""
    X, y = problem.X[n_fit:], problem.y[n_fit:]
    clf = DiffusionClassifier(
        problem.backend,
        sampler=clone(problem.sampler).set_params(proposal=problem.sampler.proposal_),
        shortlist=Shortlist(SecondLook(problem.means, problem.measurements[n_fit:]), k=10),
        random_state=problem.seed,
        verbose=0,
    )
    for name in ("unlearned", "learned"):
        clf.set_params(pruner=RacingPruner(ALPHA, max_draws=mixture.DRAWS))
        clf.fit(None, np.arange(len(problem.means)))
        vars(clf.pruner_).update(vars(raced[name]))  # with what it learned from all classes
        table = clf.errors(X)
        rows.extend(name, table.n_evaluations)
        rows.extend(f"{name}, right", clf.predict(table) == y)
    candidates = clf.propose(X)
    rows.extend("recall", candidates[np.arange(len(y)), y])
    for number, mask in enumerate(candidates, start=n_fit):
        means = problem.round_means(problem.errors(number))[mask]
        rows.add(**bound_figures(means, mixture.ROUND), seed=problem.seed)


def ratio(above, below):
    return above.mean() / below.mean()


def summarise(rows):
    """Average all figures with intervals, over whole seeds if there are several images of each."""
    seeds = rows["seed"]
    clusters = seeds if len(np.unique(seeds)) < len(seeds) else None
    found = {name: interval(np.mean, rows[name], clusters=clusters) for name in rows.figures}
    for name in ("learned", "unlearned"):
        found[f"{name} / bound"] = interval(ratio, rows[name], rows["bound"], clusters=clusters)
    for risk in RISKS:
        if f"risk {risk}" in rows.figures:
            spent = rows[f"risk {risk}"], rows["learned"]
            found[f"risk {risk} / learned"] = interval(ratio, *spent, clusters=clusters)
    found["images"] = len(seeds)
    return found


NUMBER, SHARE, RATIO = "{:,.0f}", "{:.1%}", "{:.2f}"
RACES = {
    "images": ("images", NUMBER),
    "bound": ("bound", NUMBER),
    "learned race": ("learned", NUMBER),
    "learned / bound": ("learned / bound", RATIO),
    "unlearned race": ("unlearned", NUMBER),
    "unlearned / bound": ("unlearned / bound", RATIO),
}
STEPS = {
    "bound": ("bound", NUMBER),
    "in whole rounds": ("whole", NUMBER),
    "race, all known": ("all known", NUMBER),
    "race, leader unknown": ("leader unknown", NUMBER),
    "learned race": ("learned", NUMBER),
    "unlearned race": ("unlearned", NUMBER),
    "bound, variance unknown": ("unknown", NUMBER),
}
LOST = {
    "learned race": ("learned, lost", SHARE),
    "unlearned race": ("unlearned, lost", SHARE),
    "accuracy of all draws": ("full, right", SHARE),
    "of the learned race": ("learned, right", SHARE),
}


def as_risks(problems):
    """Make the rows of the table of RiskControlledPruner."""
    return {
        (problem, f"{risk:.0%}"): {
            "spent": row[f"risk {risk}"],
            "of learned": row[f"risk {risk} / learned"],
            "lost": row[f"risk {risk}, lost"],
            "right": row[f"risk {risk}, right"],
        }
        for problem, row in problems.items()
        for risk in RISKS
        if f"risk {risk}" in row
    }


RISK_COLUMNS = {
    "evaluations": ("spent", NUMBER),
    "of the learned race": ("of learned", RATIO),
    "images lost": ("lost", SHARE),
    "accuracy": ("right", SHARE),
}
SPLIT_COLUMNS = {"evaluations": ("spent", NUMBER), "images lost": ("lost", SHARE)}
SHORTLIST_COLUMNS = {
    "learned race": ("learned", NUMBER),
    "unlearned race": ("unlearned", NUMBER),
    "learned / bound": ("learned / bound", RATIO),
    "recall": ("recall", SHARE),
    "accuracy, learned": ("learned, right", SHARE),
    "accuracy of all classes and draws": ("full, right", SHARE),
}


def as_markdown(problems, shortlist, splits, args, seconds):
    everything = problems | {"1,000 classes, shortlist of 10": shortlist}
    return "\n".join(
        [
            "# How far are races from a lower bound?",
            "",
            "To tell the winner from rival k takes a test of known variance at least "
            f"`N_k = 2 kl s_k^2 / D_k^2` draws on average, where `kl = {KL:.2f}` for errors of "
            f"{ALPHA:.0%}, and D_k and s_k are the mean and the standard deviation of their "
            "difference per draw. The *bound* is the sum of all N_k, plus the largest one for the "
            "winner. Every N_k is at most the budget. D_k and s_k come from the full record of "
            "each image.",
            "",
            f"*10 digits*: the embedded model on {args.n_images:,} held-out scenes, {N_DRAWS} "
            f"draws at importance timesteps; strategies learn from {N_FIT} further scenes. "
            f"*Mixtures*: exact predictors in {mixture.FEATURES} dimensions, {mixture.DRAWS:,} "
            f"antithetic draws at importance timesteps, {args.seeds} seeds of images and draws; "
            f"strategies learn from {args.n_fit} further images of each seed. Weights are uniform. "
            "Nothing was chosen on these images. In brackets: 95 % bootstrap intervals, over "
            f"scenes or whole seeds. {seconds / 60:.0f} minutes on a shared core, without the time "
            "to record the scenes.",
            "",
            f"## A promise for each image, alpha = {ALPHA:.0%}",
            "",
            *as_table(("problem",), RACES, everything),
            "",
            "Shares of images whose answer is not that of all draws, and accuracy:",
            "",
            *as_table(("problem",), LOST, problems),
            "",
            "## Where the rest goes",
            "",
            "Each race does without something that the one before knows. *All known*: the "
            "sequential test of `RacingPruner` with the true variance of every rival, against the "
            "true winner, from the first round on. *Leader unknown*: the same against the leader "
            "of the rounds before; the first round only finds a leader. *Learned*: the variance of "
            "the closest rival, learned from other images, stands for all, and a screen may drop "
            "classes after the first round. *Unlearned*: variances come from the image itself. The "
            "last column replaces `D_k^2 / s_k^2` of a round by `log(1 + D_k^2 / s_k^2)`, the "
            "bound for normal differences of unknown variance.",
            "",
            "All bounds are for normal differences, each rival's with its own variance. With 1,000 "
            "classes the learned race stays below them: differences to far rivals vary two to "
            "three times as much as those to the closest one, mostly with the timestep, and "
            "rarely change sign.",
            "",
            *as_table(("problem",), STEPS, everything),
            "",
            "## A promise on average over images",
            "",
            "`RiskControlledPruner`: of many images, at most the expected share *risk* loses the "
            "answer of all draws.",
            "",
            *as_table(("problem", "risk"), RISK_COLUMNS, as_risks(problems)),
            "",
            "The risk is an expectation over the images that choose the threshold, too. So here "
            f"are {SPLITS} random splits of the {args.n_images + N_FIT:,} scenes: the mean over "
            "splits, and in brackets the least and the most of a split.",
            "",
            *as_table(("scenes to learn from", "risk"), SPLIT_COLUMNS, splits),
            "",
            "## Fewer classes",
            "",
            "`Shortlist(proposer, k=10)`. The proposer is the exact posterior given a second "
            f"measurement of each image, with {LOOK} times the noise. It knows what the race does "
            "not, as CLIP might, so that accuracy is above that of all classes. The learned race "
            "has the variance that was learned from all classes.",
            "",
            *as_table(("problem",), SHORTLIST_COLUMNS, {"1,000 classes": shortlist}),
            "",
        ]
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=1000, help="scenes raced")
    parser.add_argument("--seeds", type=int, default=3, help="of mixtures")
    parser.add_argument("--n-fit", type=int, default=45, help="images to learn from, per seed")
    parser.add_argument("--per-seed", type=int, default=20, help="images raced, per seed")
    parser.add_argument("--cache", type=Path, default=Path("build/race"), help="recorded errors")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/limit.md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    scenes = record_tables(N_FIT + args.n_images, args.cache)
    start, shortlisted = time.perf_counter(), Rows()
    sizes = args.seeds, args.n_fit, args.per_seed
    problems = {
        "10 digits": race_digits(*scenes),
        "100 classes": race_mixtures(100, RISKS, *sizes),
        "1,000 classes": race_mixtures(1000, (), *sizes, shortlisted),
    }
    shortlisted.figures["full, right"] = problems["1,000 classes"].figures["full, right"]
    problems, splits = {n: summarise(r) for n, r in problems.items()}, split_digits(*scenes)
    text = as_markdown(problems, summarise(shortlisted), splits, args, time.perf_counter() - start)
    write_page(args.output, text, argv)


if __name__ == "__main__":
    main()
