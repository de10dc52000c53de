"""
Why probabilities need a temperature
====================================

The formula as printed takes the mean of squared errors for a log-likelihood. The order of the
classes is right, but the probabilities are too even. The natural temperature, which follows from
the noise schedule and needs no data, restores the unit.
"""

import matplotlib.pyplot as plt
import numpy as np

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes

scenes = load_scenes("test", n_samples=12)
natural = DiffusionClassifier(random_state=0).fit(None, DIGIT_NAMES)
printed = DiffusionClassifier(calibrator=None, random_state=0).fit(None, DIGIT_NAMES)
table = natural.errors(scenes.images)  # serves both: they differ in what they make of errors
print(f"temperature {natural.temperature_:.3f}")

# %%
# The probability of the answer, in both units.

figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
for shift, (name, clf, color) in enumerate(
    [("as printed, T = 1", printed, "#D55E00"), ("natural temperature", natural, "#0072B2")]
):
    best = clf.predict_proba(table).max(1)
    axes.bar(np.arange(12) + 0.4 * shift, best, width=0.4, label=name, color=color)
axes.axhline(0.1, color="grey", linestyle=":", label="1 / number of classes")
axes.set(xticks=np.arange(12) + 0.2, ylim=(0, 1.3), ylabel="probability of the answer")
axes.set_xticklabels(scenes.digit, rotation=45)
axes.set_yticks([0, 0.5, 1])
axes.legend(loc="upper center", ncols=3, frameon=False)
axes.spines[["top", "right"]].set_visible(False)
