"""
At which noise levels classes are told apart
============================================

Where the line is near 0, draws are wasted: with hardly any noise every caption predicts it well,
with hardly any picture left none does. :class:`~diffusion_classifier.samplers.ImportanceSampler`
draws where the line is far from 0.
"""

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.plotting import ErrorByTimestepDisplay
from diffusion_classifier.pruners import NoPruning

scenes = load_scenes("test", n_samples=8)
clf = DiffusionClassifier(sampler="stratified", pruner=NoPruning(40), random_state=0)
clf.fit(None, DIGIT_NAMES)
table = clf.errors(scenes.images)

# %%
# Bands count both pictures and draws. Eight pictures leave them wide.

display = ErrorByTimestepDisplay.from_table(table, scenes.digit, n_bins=8)
display.figure_.set_size_inches(8, 4.5)
