"""Evidence maps: what is coloured, what is masked, and where it lies on the picture."""

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.explaining import Evidence, explain
from diffusion_classifier.plotting import EvidenceMapDisplay
from diffusion_classifier.pruners import NoPruning

NATS = np.array([[4.0, 0.1, -2.0], [1.0, -0.3, 0.2]])
ERROR = np.array([[1.0, 1.0, 0.5], [0.7, 0.1, 0.05]])


def test_places_within_two_standard_errors_are_masked():
    display = EvidenceMapDisplay(Evidence(NATS, ERROR), "cat", "dog").plot()
    (drawn,) = display.ax_.images
    shown = drawn.get_array()
    assert shown.mask.tolist() == [[False, True, False], [True, False, False]]
    assert shown.compressed().tolist() == [4.0, -2.0, -0.3, 0.2]
    assert drawn.get_clim() == (-4.0, 4.0)  # symmetrical: white is no evidence
    red, _, blue = drawn.cmap(drawn.norm([-4.0, 4.0]))[:, :3].T
    assert red[0] > blue[0] and blue[1] > red[1]
    assert display.ax_.get_title() == "cat over dog: +3 nats in all"
    every = display.plot(z=0).ax_.images[0].get_array()
    assert not every.mask.any()


def test_signs_differ_in_grey_by_their_outlines():
    display = EvidenceMapDisplay(Evidence(NATS, ERROR), "cat", "dog").plot()
    favours, against = display.ax_.collections
    assert len(favours.get_segments()) == len(against.get_segments()) == 4  # 1 place; weak: none
    corners = {tuple(point) for edge in favours.get_segments() for point in edge}
    assert corners == {(-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)}
    assert favours.get_linestyle()[0][1] is None and against.get_linestyle()[0][1] is not None


def test_the_map_lies_on_the_picture_that_the_model_sees():
    wide = Image.new("RGB", (60, 40), (200, 30, 30))
    clf = DiffusionClassifier(pruner=NoPruning(8), random_state=0).fit(None, ["red", "blue"])
    display = EvidenceMapDisplay.from_estimator(clf, wide, "red", "blue", n_draws=4)
    assert display.picture.size == (32, 32)
    picture, drawn = display.ax_.images
    extents = [tuple(image.get_extent()) for image in (picture, drawn)]
    assert extents == [(-0.5, 7.5, 7.5, -0.5)] * 2
    expected = explain(clf, wide, "red", "blue", n_draws=4)
    np.testing.assert_array_equal(display.evidence.nats, expected.nats)
    strength = drawn.get_alpha() / np.abs(expected.nats)
    np.testing.assert_allclose(strength, strength[0, 0])  # opaque where evidence is strong
    labels = [ax.get_ylabel() for ax in display.figure_.axes]
    assert labels == ["", "nats per place: > 0 for red, < 0 for blue"]


def test_latents_have_no_picture_and_no_evidence_no_colour():
    clf = DiffusionClassifier(pruner=NoPruning(4), random_state=0).fit(None, ["red", "blue"])
    latents = clf.encode(load_scenes("test", n_samples=1).images)
    display = EvidenceMapDisplay.from_estimator(clf, latents, "red", "blue", colorbar=False)
    assert display.picture is None and len(display.ax_.images) == 1
    assert len(display.figure_.axes) == 1
    nothing = EvidenceMapDisplay(Evidence(np.zeros((2, 2)), np.ones((2, 2))), "a", "b").plot()
    assert nothing.ax_.images[0].get_array().mask.all()


@pytest.mark.parametrize("colour", [(0, 200, 0), (90, 90, 90)])
def test_pictures_in_colours_of_one_grey_are_seen(colour):
    """A red stroke is seen on green, although both may have the same grey."""
    image = Image.new("RGB", (8, 8), colour)
    image.paste((230, 60, 60), (2, 2, 6, 6))
    display = EvidenceMapDisplay(Evidence(NATS, ERROR), "a", "b", image).plot()
    drawn = display.ax_.images[0].get_array()
    assert drawn[4, 4] - drawn[0, 0] in (255, -255)
    assert colors.Normalize(display.ax_.images[0].get_clim()[0], 255)(0) > 0.4  # pale
