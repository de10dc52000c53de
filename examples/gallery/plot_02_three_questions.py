"""
Three questions to one model
============================

A digit, its colour, or the colour behind it: other labels turn the same model into another
classifier. Encode the pictures once, and ask as often as you like.
"""

import matplotlib.pyplot as plt

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import COLOR_NAMES, DIGIT_NAMES, load_scenes

scenes = load_scenes("test", n_samples=5)
questions = {
    "digit": (DIGIT_NAMES, "a {}"),
    "colour": (COLOR_NAMES, "a {} digit"),
    "background": (COLOR_NAMES, "a digit on a {} background"),
}
answers = {}
for question, (labels, template) in questions.items():
    clf = DiffusionClassifier(prompts=template, random_state=0).fit(None, labels)
    latents = clf.encode(scenes.images)
    answers[question] = clf.predict(latents)

# %%
# The pictures with all three answers. Only ``prompts`` and the labels of ``fit`` differ.

figure, panels = plt.subplots(1, 5, figsize=(11, 2.7), layout="constrained")
for i, panel in enumerate(panels):
    panel.imshow(scenes.images[i])
    panel.set_title(
        f"a {answers['colour'][i]} {answers['digit'][i]}\non {answers['background'][i]}",
        fontsize=11,
    )
    panel.set_axis_off()
