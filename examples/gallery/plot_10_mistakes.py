"""
The mistakes first
==================

With two draws only, the model errs more often. A contact sheet shows wrong answers first, the most
confident ones at the front, with a thick frame and a cross.
"""

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.plotting import ContactSheet
from diffusion_classifier.pruners import NoPruning

scenes = load_scenes("test", n_samples=60)
clf = DiffusionClassifier(pruner=NoPruning(2), random_state=0).fit(None, DIGIT_NAMES)
table = clf.errors(scenes.images)

# %%
# Twelve of 60 pictures. ``docs/why-wrong.md`` leads from such a mistake to its reason.

sheet = ContactSheet.from_table(table, scenes.images, scenes.digit, n_images=12, n_columns=6)
