"""
The same words in another order
===============================

"A red seven on a blue background" and "a blue seven on a red background" have the same words. A
model that only counts them could not tell the two pictures apart.
"""

import matplotlib.pyplot as plt
import numpy as np

from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.matching import match_scores

scenes = load_scenes("test", n_samples=4)
captions = [
    f"a {color} {digit} on a {background} background"
    for color, digit, background in zip(scenes.color, scenes.digit, scenes.background, strict=True)
]
swapped = [
    f"a {background} {digit} on a {color} background"
    for color, digit, background in zip(scenes.color, scenes.digit, scenes.background, strict=True)
]
scores = match_scores(scenes.images, captions + swapped, max_draws=20, random_state=0)
right = np.arange(4)
print(scores[right, right] > scores[right, right + 4])

# %%
# How much better the right caption is than the swapped one. Scores are mean errors with the sign
# turned, so a larger one is better.

figure, panels = plt.subplots(2, 4, figsize=(11, 4.6), layout="constrained", height_ratios=[2, 1])
for i, (picture, bar) in enumerate(panels.T):
    picture.imshow(scenes.images[i])
    picture.set_title(captions[i].replace(" on ", "\non "), fontsize=10)
    picture.set_axis_off()
    bar.barh(["right"], [scores[i, i] - scores[i, i + 4]], color="#0072B2")
    bar.set(yticks=[], xlabel="lead over the swapped caption")
    bar.axvline(0, color="grey")
    bar.spines[["top", "right", "left"]].set_visible(False)
