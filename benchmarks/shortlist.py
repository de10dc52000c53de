"""Measure shortlists: 1,000 mixture classes, 70 classes of scenes, and averaged prompts.

Mixture: exact noise predictions, as in mixture.py, but classes that a cheap proposer can tell
apart well enough for a shortlist. Scenes: the embedded model on 70 (colour, digit) classes and on
10 digits. Errors are kept in a folder, so that an interrupted run resumes. About 15 minutes on 2
CPU cores. Writes docs/benchmarks/shortlist.md:

    python benchmarks/shortlist.py
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path

import mixture
import numpy as np
import torch
from mixture import DRAWS, LOG_PRIOR, SAMPLERS, K, full_errors, make_backend, take_draws
from report import as_table, interval, probability_figures, write_page
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import COLOR_NAMES, DIGIT_NAMES, load_scenes
from diffusion_classifier.learner import FitRecord
from diffusion_classifier.pruners import RacingPruner, RiskControlledPruner
from diffusion_classifier.race import DrawTape, run_race
from diffusion_classifier.race.recorded import RecordedErrors
from diffusion_classifier.scoring import Scoring
from diffusion_classifier.shortlist import FactoredShortlist, HierarchyShortlist, Shortlist, recall

SEED = 0
N_CANDIDATES = 10
N_RECALL = 2000  # images of the mixture that recall is measured on
# spread of the classes, labelled images per component that the proposer knows its mean from
PROPOSERS = {
    "easy classes, one labelled image a component": (0.40, 1),
    "classes of mixture.md, an oracle": (mixture.SPREAD, None),
}
ORACLE = 0.99  # share of images whose true class joins the nine most likely others
TEMPLATES = ["a {}", "a photo of a {}", "a handwritten {}", "the number {}"]
LABELS = [f"{color} {digit}" for color, digit in product(COLOR_NAMES, DIGIT_NAMES)]


# ------------------------------------------------------------------ mixture


def propose(backend, latents, y, per_component):
    """Return log likelihoods [N, K] under means that were estimated from labelled images."""
    rng, means, variance = np.random.default_rng(SEED), backend.means_, backend.variances_[0, 0]
    if per_component is not None:
        error = rng.standard_normal(means.shape) / np.sqrt(per_component)
        means = means + torch.as_tensor(error) * variance.sqrt()
    each = [
        latents / variance @ mean.T - 0.5 * (mean**2 / variance).sum(1)
        for mean in means.transpose(0, 1)
    ]
    scores = torch.stack(each).logsumexp(0)
    if per_component is None:  # the most likely classes, with the true one among them or not
        rows = torch.arange(len(y))
        joins = torch.as_tensor(rng.random(len(y)) < ORACLE)
        scores[rows, y] = torch.where(joins, scores.amax(1) + 1, scores.amin(1) - 1)
    return scores


class OfCandidates:
    """The few attributes of a backend that ``full_errors`` reads, for some of its classes."""

    def __init__(self, backend, classes):
        self.schedule, self.variances_ = backend.schedule, backend.variances_
        self.means_ = backend.means_[classes]


def make_record(backend, sampler, latents, candidates, true):
    """Record errors of candidates [N, 10]; the true class takes the last place if it is none."""
    tape, noise = take_draws(backend, sampler, SEED)
    errors, place = [], []
    for x, classes, label in zip(latents, candidates, true.tolist(), strict=True):
        asked = classes.clone()
        if label not in asked.tolist():
            asked[-1] = label
        errors.append(full_errors(OfCandidates(backend, asked), x, tape.timesteps, noise))
        place.append(asked.tolist().index(label))
    return FitRecord(
        torch.stack(errors), torch.tensor(place), torch.arange(N_CANDIDATES), tape.timesteps,
        tape.density, tape.round_of, LOG_PRIOR[:N_CANDIDATES], backend.schedule, "epsilon",
    )  # fmt: skip


def race(errors, tape, pruner, scoring):
    """Race one image; return the place of its answer and its evaluations."""
    (result,) = run_race(RecordedErrors(errors[None]), tape, pruner, scoring, [0])
    n = result.errors.shape[1]
    scored = scoring.contributions(result.errors, tape.timesteps[:n], tape.density[:n]).mean(1)
    return int(scored.masked_fill(~result.active, torch.inf).argmin()), result.n_evaluations


def measure_mixture(spread, per_component, n_images, n_fit):
    """Race among candidates, and all classes; return figures by name of the race."""
    mixture.SPREAD = spread
    backend = make_backend()
    X, y = backend.sample(n_fit + N_RECALL, random_state=SEED + 1)
    latents, y = backend.encode_images(torch.as_tensor(X)), torch.as_tensor(y)
    scores = propose(backend, latents, y, per_component)
    candidates = scores.argsort(1, descending=True)[:, :N_CANDIDATES]
    fit = latents[:n_fit], candidates[:n_fit], y[:n_fit]
    weights = torch.ones(backend.schedule.n_timesteps, dtype=torch.float64)
    pilot = make_record(backend, SAMPLERS["uniform"], *fit)
    sampler = clone(SAMPLERS["importance"]).learn(pilot, weights)
    record = make_record(backend, sampler, *fit)
    few = Scoring(weights, LOG_PRIOR[:N_CANDIDATES], torch.arange(N_CANDIDATES))
    everyone = Scoring(weights, LOG_PRIOR, torch.arange(K))
    pruners = {
        "racing": RacingPruner(max_draws=DRAWS).learn(record, weights),
        "racing, 200 draws at most": RacingPruner().learn(record, weights),
        "racing, unlearned": RacingPruner(max_draws=DRAWS),
        "risk-controlled, 3 %": RiskControlledPruner(0.03, max_draws=DRAWS).learn(record, weights),
    }
    tape, noise = take_draws(backend, sampler, SEED)
    short = DrawTape(sampler.rounds(backend.schedule, SEED), RacingPruner().max_draws)
    rows = {name: [] for name in ("all classes, racing", *pruners)}
    hits = (candidates == y[:, None])[n_fit:].double().numpy()
    raced = slice(n_fit, n_fit + n_images)
    for x, own, label in zip(latents[raced], candidates[raced], y[raced], strict=True):
        errors = full_errors(backend, x, tape.timesteps, noise)
        full = scoring_answer(everyone, errors, tape)
        answer, spent = race(errors, tape, pruners["racing"], everyone)
        rows["all classes, racing"].append((spent, answer == label, full == label))
        for name, pruner in pruners.items():
            draws = short if pruner.max_draws < DRAWS else tape
            place, spent = race(errors[own], draws, pruner, few)
            rows[name].append((spent, own[place] == label, full == label))
    return {
        name: {
            "recall": interval(np.mean, hits.sum(1)),
            "proposer": float(hits[:, 0].mean()),
            "evaluations": interval(np.mean, np.array(row, float)[:, 0]),
            "median": float(np.median(np.array(row, float)[:, 0])),
            "right": interval(np.mean, np.array(row, float)[:, 1]),
            "full": float(np.array(row, float)[:, 2].mean()),
        }
        for name, row in rows.items()
    }


def scoring_answer(scoring, errors, tape):
    return int(scoring.contributions(errors, tape.timesteps, tape.density).mean(1).argmin())


# ------------------------------------------------------------------ scenes


class PixelProposer(ClassifierMixin, BaseEstimator):
    """Two linear classifiers of pixels, whose probabilities of colour and digit are multiplied.

    Training scenes lack ten of the seventy pairs, so that no classifier of pairs can learn them.
    """

    def fit(self, images, colors, digits):
        self.models_ = [
            LogisticRegression(C=0.1, max_iter=500).fit(flatten(images), labels)
            for labels in (colors, digits)
        ]
        pairs = product(*(model.classes_ for model in self.models_))
        self.classes_ = np.array([f"{color} {digit}" for color, digit in pairs])
        return self

    def predict_proba(self, images):
        colors, digits = (model.predict_proba(flatten(images)) for model in self.models_)
        return (colors[:, :, None] * digits[:, None]).reshape(len(images), -1)


def flatten(images):
    """Return the pixels of scenes as rows."""
    return np.asarray(images).reshape(len(images), -1) / 255.0


def labels_of(scenes):
    pairs = zip(scenes.color, scenes.digit, strict=True)
    return np.array([f"{color} {digit}" for color, digit in pairs])


def make_shortlists(n_train):
    """Return shortlists of the 70 classes by name."""
    train = load_scenes("train", n_samples=n_train, random_state=SEED)
    linear = PixelProposer().fit(train.images, train.color, train.digit)
    factors = {"colour": list(COLOR_NAMES), "digit": list(DIGIT_NAMES)}
    nodes = {c: [f"{c} {d}" for d in DIGIT_NAMES] for c in COLOR_NAMES}
    prompts = {"colour": "a {} digit", "digit": "a {}"}
    return {
        "none: all classes race": None,
        "colours, then their digits": HierarchyShortlist(nodes, prompts="a {} digit"),
        "colours and digits, then 10": FactoredShortlist(
            factors, "{colour} {digit}", prompts=prompts
        ),
        "colours and digits, then 2": FactoredShortlist(
            factors, "{colour} {digit}", prompts=prompts, k=2
        ),
        f"linear, {n_train} labelled scenes, 10": Shortlist(linear, 10),
        "the same, 5": Shortlist(linear, 5),
        "the same, 10, prior strength 1": Shortlist(linear, 10, prior_strength=1.0),
    }


def group_evaluations(clf, latents):
    """Return the evaluations that the races of groups took, [N]: the same races on their own."""
    groups = getattr(clf.shortlist_, "groups_", [])
    total = np.zeros(len(latents))
    for own in groups:
        alone = clone(clf).set_params(shortlist=None, prompts="{}")
        sizes = np.bincount(own.members)
        alone.set_params(priors=sizes[np.argsort(np.argsort(own.prompts))])
        total += alone.fit(None, own.prompts).errors(latents).n_evaluations
    return total


def measure_scenes(shortlists, n_images, memory):
    """Race 70 classes with each shortlist."""
    scenes = load_scenes("test", n_samples=n_images, random_state=SEED)
    true, rows, flat = labels_of(scenes), {}, None
    for name, shortlist in shortlists.items():
        clf = DiffusionClassifier(
            prompts="a {}", shortlist=shortlist, random_state=SEED, memory=memory, verbose=0
        ).fit(None, LABELS)
        table = clf.errors(scenes.images)
        answers = clf.predict(table)
        flat = answers if flat is None else flat
        column = np.searchsorted(clf.classes_, true)
        proposals = group_evaluations(clf, clf.encode(scenes.images))
        rows[name] = {
            "recall": recall(clf.propose(scenes.images), true, clf.classes_),
            "proposals": float(proposals.mean()),
            "evaluations": interval(np.mean, proposals + table.n_evaluations),
            "right": interval(np.mean, answers == true),
            "agree": interval(np.mean, answers == flat),
            "log_loss": float(
                probability_figures(clf.predict_log_proba(table), column)["log_loss"].mean()
            ),
        }
        print(name, rows[name], flush=True)
    return rows


def measure_prompts(n_images, memory):
    """Race 10 digits with one template each, and with all of them."""
    scenes = load_scenes("unseen_pairs", n_samples=n_images, random_state=SEED)
    true, rows = scenes.digit, {}
    asked = {template: (template, "best") for template in TEMPLATES}
    asked |= {f"all, {reduction}": (TEMPLATES, reduction) for reduction in ("best", "embedding")}
    for name, (prompts, reduction) in asked.items():
        clf = DiffusionClassifier(
            prompts=prompts,
            prompt_reduction=reduction,
            random_state=SEED,
            memory=memory,
            verbose=0,
        ).fit(None, DIGIT_NAMES)
        table = clf.errors(scenes.images)
        column = np.searchsorted(clf.classes_, true)
        figures = probability_figures(clf.predict_log_proba(table), column)
        rows[name] = {
            "evaluations": interval(np.mean, table.n_evaluations),
            "right": interval(np.mean, figures["right"]),
            "log_loss": interval(np.mean, figures["log_loss"]),
        }
        print(name, rows[name], flush=True)
    return rows


# ------------------------------------------------------------------ report

MIXTURE = {
    "recall of 10": ("recall", "{:.1%}"),
    "proposer alone": ("proposer", "{:.1%}"),
    "evaluations per image": ("evaluations", "{:,.0f}"),
    "median": ("median", "{:,.0f}"),
    "accuracy": ("right", "{:.1%}"),
    "of the full grid": ("full", "{:.1%}"),
}
SCENES = {
    "recall": ("recall", "{:.1%}"),
    "evaluations per image": ("evaluations", "{:,.0f}"),
    "of which proposals": ("proposals", "{:,.0f}"),
    "accuracy": ("right", "{:.1%}"),
    "same answer as the flat race": ("agree", "{:.1%}"),
    "log-loss": ("log_loss", "{:.3f}"),
}
PROMPTS = {
    "evaluations per image": ("evaluations", "{:,.0f}"),
    "accuracy": ("right", "{:.1%}"),
    "log-loss": ("log_loss", "{:.3f}"),
}


def report(mixtures, scenes, prompts, args, seconds):
    """Format the results as Markdown."""
    spreads = [spread for spread, _ in PROPOSERS.values()]
    return "\n".join(
        [
            "# Shortlists",
            "",
            f"Intervals are 95 %, bootstrapped over images. {seconds / 60:.0f} minutes on 2 CPU "
            "cores, shared with other work.",
            "",
            f"## {K:,} mixture classes, {N_CANDIDATES} candidates",
            "",
            f"{args.mixture_images} images, seed {SEED}; the race learns from "
            f"{args.fit_images} others, with their candidates alone. Recall is that of "
            f"{N_RECALL:,} images. Exact noise predictions, at most {DRAWS:,} antithetic draws at "
            "learned timesteps; *full grid*: all classes on all draws.",
            "",
            "The first proposer is a mixture with means estimated from one labelled image a "
            "component, two a class. Its classes are "
            f"{spreads[0] / spreads[1]:.2f} times as far apart as those of "
            "[mixture.md](mixture.md), of which even the true densities name the right one among "
            f"the first ten for 93 % only. There, an oracle stands in. For {ORACLE:.0%} of the "
            "images it names the true class and the nine most likely others, else ten others; its "
            "own first place means nothing.",
            "",
            *as_table(("proposer", "race"), MIXTURE, mixtures),
            "",
            "## 70 classes of scenes",
            "",
            f"{args.images} held-out scenes, seven colours times ten digits, embedded model, all "
            f"defaults, seed {SEED}. The linear proposer multiplies the probabilities of two "
            "logistic regressions on pixels, of colours and of digits; C = 0.1 was not tuned. It "
            "hardly knows digits: its ten candidates are the ten digits of one colour.",
            "",
            *as_table(("shortlist",), SCENES, scenes),
            "",
            "## Several templates",
            "",
            f"{args.prompt_images} held-out scenes of (digit, colour) pairs that training never "
            "saw, 10 digits, all defaults.",
            "",
            *as_table(("templates",), PROMPTS, prompts),
            "",
        ]
    )


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixture-images", type=int, default=40)
    parser.add_argument("--fit-images", type=int, default=60)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--prompt-images", type=int, default=12)
    parser.add_argument("--train-scenes", type=int, default=2000)
    parser.add_argument("--memory", type=Path, default=Path("build/shortlist"))
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/shortlist.md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    start = time.perf_counter()
    shortlists = make_shortlists(args.train_scenes)
    scenes = measure_scenes(shortlists, args.images, args.memory)
    prompts = measure_prompts(args.prompt_images, args.memory)
    mixtures = {}
    for name, (spread, per_component) in PROPOSERS.items():
        found = measure_mixture(spread, per_component, args.mixture_images, args.fit_images)
        mixtures |= {(name, race_name): row for race_name, row in found.items()}
        print(name, found, flush=True)
    text = report(mixtures, scenes, prompts, args, time.perf_counter() - start)
    write_page(args.output, text, argv)


if __name__ == "__main__":
    main()
