"""Match images and captions that contain the same words in a different order.

The test follows Winoground (Thrush et al., CVPR 2022, arXiv 2204.03162). A pair has two images and
two captions, such as "a red seven on a blue background" and "a blue seven on a red background".
Each pair is scored on three questions:

    text    does each image score higher with its own caption than with the other?
    image   does each caption score higher with its own image than with the other?
    group   both

Random scores would pass 1/4, 1/4 and 1/6 of the pairs. The scores are ``match_scores`` of the
embedded model:

    python examples/matching.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import binomtest

from diffusion_classifier.backends import load_embedded
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.matching import match_scores

CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}


def swapped_pairs(n_pairs):
    """Find images [n_pairs, 2, 32, 32, 3] and captions [n_pairs, 2] with swapped colours."""
    scenes = load_scenes("test", n_samples=40 * n_pairs)  # handwriting that training never saw
    labels = list(zip(scenes.digit, scenes.color, scenes.background, strict=True))
    waiting, pairs = {}, []
    for i, (digit, color, background) in enumerate(labels):
        if waiting.get((digit, background, color)):
            pairs.append((waiting[digit, background, color].pop(), i))
        else:
            waiting.setdefault((digit, color, background), []).append(i)
    pairs = pairs[:n_pairs]
    captions = [f"a {color} {digit} on a {ground} background" for digit, color, ground in labels]
    return scenes.images[np.array(pairs)], [[captions[i] for i in pair] for pair in pairs]


def winoground(scores):
    """Return which pairs pass each question, from scores [n_pairs, image, caption]."""
    own = scores[:, [0, 1], [0, 1]]
    text = (own > scores[:, [0, 1], [1, 0]]).all(1)  # against the other caption
    image = (own > scores[:, [1, 0], [0, 1]]).all(1)  # against the other image
    return {"text": text, "image": image, "group": text & image}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-pairs", type=int, default=50)
    parser.add_argument("--draws", type=int, default=16, help="draws per image and caption")
    args = parser.parse_args(argv)

    images, captions = swapped_pairs(args.n_pairs)
    backend, start = load_embedded(), time.perf_counter()
    scores = {}
    for normalize in (None, "unconditional"):
        scores[normalize] = np.stack(
            [
                match_scores(
                    *pair, backend, normalize=normalize, max_draws=args.draws, random_state=number
                )
                for number, pair in enumerate(zip(images, captions, strict=True))
            ]
        )
    print(f"{len(images)} pairs, the first: {' / '.join(captions[0])}")
    print(f"{args.draws} draws per image and caption, {time.perf_counter() - start:.0f} s")
    for normalize, of_pairs in scores.items():
        print(f"\nnormalize={normalize!r}")
        for question, right in winoground(of_pairs).items():
            low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            print(
                f"  {question:5}  {right.mean():6.1%}  (95 % interval {low:.1%} to {high:.1%}, "
                f"n = {len(right)}, chance {CHANCE[question]:.1%})"
            )


if __name__ == "__main__":
    main()
