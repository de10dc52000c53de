"""
The race of one picture
=======================

Classes that are clearly behind are dropped after a few draws, so that most of the cost goes to the
few that could still win. A cross marks where a class left.
"""

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.plotting import RaceDisplay

scenes = load_scenes("test", n_samples=8)
clf = DiffusionClassifier(random_state=0).fit(None, DIGIT_NAMES)
table = clf.errors(scenes.images)
longest = int(table.n_evaluations.argmax())
print(dict(zip(scenes.digit.tolist(), table.n_evaluations.tolist(), strict=True)))

# %%
# The longest of the eight races. Distances are in nats: a rival that is one nat behind is
# 2.7 times less likely.

RaceDisplay.from_table(table, image=longest).figure_.set_size_inches(8, 4.5)
