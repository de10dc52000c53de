"""How often images of something else are rejected, and images of the labels are not.

The classifier knows the digits zero to seven. Scenes that show an eight or a nine belong to none
of these. Nothing was chosen on the images: the further class has no parameter, and thresholds are
round numbers.

Writes docs/benchmarks/rejection.md in about 2 minutes on one core:

    python benchmarks/rejection.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from report import as_table, interval, write_page
from sklearn.metrics import roc_auc_score

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.evaluation import RejectOption, wilson
from diffusion_classifier.pruners import RacingPruner

KNOWN = list(DIGIT_NAMES[:8])
THRESHOLDS = (0.5, 0.9, 0.99)


def measure(option, images, digits):
    """Return rows by threshold, and the area under the curve of the probabilities."""
    table = option.classifier_.errors(images)
    proba = option.predict_proba(table)
    known = np.isin(digits, KNOWN)
    labels = option.classes_ != option.none_
    best = proba[:, labels].max(1)
    cost = interval(np.mean, table.n_evaluations)
    thresholds = THRESHOLDS if not option.unconditional else (0.0, *THRESHOLDS)
    rows = {}
    for threshold in thresholds:
        answers = option.set_params(threshold=threshold).decide(proba)
        rejected, right = answers == option.none_, answers == digits
        rows[threshold] = {
            "right": list(wilson(int(right[known].sum()), int(known.sum()))),
            "lost": list(wilson(int(rejected[known].sum()), int(known.sum()))),
            "found": list(wilson(int(rejected[~known].sum()), int((~known).sum()))),
            "evaluations": cost,
        }
    return rows, interval(_area, known, best)


def _area(known, best):
    return roc_auc_score(known, best) if 0 < known.sum() < len(known) else np.nan


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=150)
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/rejection.md"))
    args = parser.parse_args(argv)
    began = time.process_time()
    scenes = load_scenes("test", n_samples=args.n_images, random_state=1)
    known = int(np.isin(scenes.digit, KNOWN).sum())
    clf = DiffusionClassifier(pruner=RacingPruner(max_draws=args.draws), random_state=0, verbose=0)
    rows, areas = {}, {}
    for unconditional in (True, False):
        option = RejectOption(clf, unconditional=unconditional).fit(None, KNOWN)
        name = "unconditional prompt" if unconditional else "none"
        found, areas[name] = measure(option, scenes.images, scenes.digit)
        rows |= {(name, str(threshold or "none")): row for threshold, row in found.items()}
    columns = {
        "known: right": ("right", "{:.1%}"),
        "known: rejected": ("lost", "{:.1%}"),
        "unknown: rejected": ("found", "{:.1%}"),
        "evaluations per image": ("evaluations", "{:.0f}"),
    }
    area = {key: {"area": value} for key, value in areas.items()}
    minutes = (time.process_time() - began) / 60
    text = f"""# None of these

{args.n_images} held-out scenes of the embedded model (test, seed 1). The classifier knows the
digits zero to seven, which {known} scenes show ("known"); the other {args.n_images - known} show an
eight or a nine ("unknown"). One seed of draws (0), races of at most {args.draws} draws, natural
temperature. In brackets: 95 % intervals, Wilson's for shares, the bootstrap's over images for the
rest. Nothing was chosen on these images. {minutes:.1f} minutes of one core.

{chr(10).join(as_table(["further class", "threshold"], columns, rows))}

Area under the curve of the best label's probability, known against unknown:

{chr(10).join(as_table(["further class"], {"area": ("area", "{:.3f}")}, area))}
"""
    write_page(args.output, text, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    main()
