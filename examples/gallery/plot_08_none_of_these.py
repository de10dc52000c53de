"""
None of these
=============

Probabilities of the labels add up to 1, whatever the picture shows.
:class:`~diffusion_classifier.evaluation.RejectOption` lets the empty prompt, which stands for any
picture, race as well. An answer has to beat it.
"""

import matplotlib.pyplot as plt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.evaluation import RejectOption
from diffusion_classifier.pruners import RacingPruner

scenes = load_scenes("test", n_samples=8)
labels = ["red", "green", "blue"]
clf = DiffusionClassifier(prompts="a {} digit", pruner=RacingPruner(max_draws=40), random_state=0)
forced = clf.fit(None, labels).predict(scenes.images)
free = RejectOption(clf).fit(None, labels).predict(scenes.images)

# %%
# Above each picture what it was called when it had to be one of three colours, and what when it
# was free not to be.

figure, panels = plt.subplots(2, 4, figsize=(9, 5.4), layout="constrained")
for i, panel in enumerate(panels.flat):
    panel.imshow(scenes.images[i])
    panel.set_title(f"forced: {forced[i]}\nfree: {free[i]}", fontsize=11)
    panel.set_axis_off()
