"""
Answers and how sure they are
=============================

Name the classes, and every picture gets a probability for each. The bars are those of the three
most probable classes. Nothing was trained to classify.
"""

import matplotlib.pyplot as plt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes

scenes = load_scenes("test", n_samples=6)
clf = DiffusionClassifier(random_state=0).fit(None, DIGIT_NAMES)
probabilities = clf.predict_proba(scenes.images)

# %%
# The true class is blue. With more labels than these, probabilities would be shared among more.

figure, panels = plt.subplots(2, 6, figsize=(11, 3.6), layout="constrained")
for i, (picture, bars) in enumerate(panels.T):
    picture.imshow(scenes.images[i])
    picture.set_axis_off()
    best = probabilities[i].argsort()[-3:]
    colors = ["#0072B2" if clf.classes_[k] == scenes.digit[i] else "#BBBBBB" for k in best]
    bars.barh(clf.classes_[best], probabilities[i, best], color=colors)
    bars.set(xlim=(0, 1), xticks=[0, 1])
    bars.spines[["top", "right"]].set_visible(False)
