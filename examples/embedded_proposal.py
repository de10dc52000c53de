"""Learn at which timesteps the embedded model tells classes apart, its default proposal.

For each of three questions (digit, colour, background), this records errors of labelled *training*
scenes and computes the profile: the root mean square, at each timestep, of the difference between
two classes' errors on the same draw. The mean profile is written next to the model's weights, where
``load_embedded`` finds it. It takes about 150,000 evaluations:

    python examples/embedded_proposal.py --output build/proposal.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends.embedded import proposal_path
from diffusion_classifier.datasets import COLOR_NAMES, DIGIT_NAMES, load_scenes
from diffusion_classifier.estimator.fitting import fit_record
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import ImportanceSampler, StratifiedSampler

QUESTIONS = {
    "digit": (DIGIT_NAMES, "a {}"),
    "color": (COLOR_NAMES, "a {} digit"),
    "background": (COLOR_NAMES, "a digit on a {} background"),
}


def learn_proposal(question, n_scenes, n_draws, seed):
    """Learn the profile of one question, of shape (T,), normalised to mean 1."""
    values, template = QUESTIONS[question]
    scenes = load_scenes("train", n_samples=n_scenes, random_state=seed)
    clf = DiffusionClassifier(
        prompts=template,
        sampler=StratifiedSampler(),
        pruner=NoPruning(n_draws),
        random_state=seed,
    )
    table = clf.fit(None, values).errors(scenes.images)
    true_class = np.searchsorted(clf.classes_, scenes[question])
    proposal = ImportanceSampler().learn(fit_record(table, true_class)).proposal_
    return proposal / proposal.mean()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-scenes", type=int, default=60)
    parser.add_argument("--n-draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=proposal_path())
    args = parser.parse_args(argv)
    learned = [learn_proposal(q, args.n_scenes, args.n_draws, args.seed) for q in QUESTIONS]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_file({"proposal": torch.stack(learned).mean(0).float()}, args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
