"""
What pruners cost
=================

Record all errors once, and let every pruner race on them. The grey line is what fewer draws without
pruning would give.
"""

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.plotting import CostAccuracyDisplay
from diffusion_classifier.pruners import NoPruning

scenes = load_scenes("test", n_samples=16)
clf = DiffusionClassifier(pruner=NoPruning(30), random_state=0).fit(None, DIGIT_NAMES)
table = clf.errors(scenes.images)

# %%
# Sixteen pictures are enough to see the order of costs, and not to see differences of accuracy:
# look at the intervals. The race on 1,000 scenes is in the benchmarks.

display = CostAccuracyDisplay.from_table(table, scenes.digit)
display.figure_.set_size_inches(8, 4.5)
