"""
Where in the picture one class beats another
============================================

The difference of two classes is a sum over the places of the latent's grid. Blue places speak for
the first class, orange-red ones for the second. Places within two standard errors of 0 are left
out.
"""

import matplotlib.pyplot as plt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.plotting import EvidenceMapDisplay
from diffusion_classifier.pruners import NoPruning

scenes = load_scenes("test", n_samples=8)
clf = DiffusionClassifier(pruner=NoPruning(60), random_state=0).fit(None, DIGIT_NAMES)

# %%
# The true digit of two scenes against one that looks like it.

rivals = {"one": "seven", "seven": "one", "three": "eight", "nine": "four", "six": "eight"}
chosen = [i for i, digit in enumerate(scenes.digit) if digit in rivals][:2]
figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for panel, i in zip(panels, chosen, strict=True):
    true = scenes.digit[i]
    EvidenceMapDisplay.from_estimator(clf, scenes.images[i], true, rivals[true], ax=panel)
