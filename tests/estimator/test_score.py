"""The accuracy of a run in which some images cannot be read."""

import numpy as np
import pytest

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputError
from diffusion_classifier.pruners import NoPruning


@pytest.fixture(scope="module")
def clf():
    clf = DiffusionClassifier(
        prompts="a {} digit", pruner=NoPruning(4), random_state=0, batch_size=8, verbose=0
    )
    return clf.fit(None, ["blue", "green", "red"])


@pytest.fixture(scope="module")
def images():
    return [*load_scenes("test", n_samples=4).images, "missing.png"]


def test_skipped_images_do_not_count(clf, images):
    answers = clf.predict(images[:4]).tolist()
    wrong = ["red" if answer != "red" else "blue" for answer in answers]
    y = [*answers[:3], wrong[3], "red"]
    assert clf.score(images, y, on_error="skip") == 3 / 4
    assert [image for image, _ in clf.skipped_] == [4]
    weights = [1, 1, 1, 5, 100]
    assert clf.score(images, y, sample_weight=weights, on_error="skip") == 3 / 8
    assert clf.score(images[:4], y[:4], on_error="skip") == clf.score(images[:4], y[:4]) == 3 / 4


def test_all_labels_are_needed_and_images_are_not_skipped_by_default(clf, images):
    with pytest.raises(InputError, match=r"image 4: 'missing.png' does not exist"):
        clf.score(images, np.resize(["blue"], 5))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.score(images, ["blue"] * 4, on_error="skip")


def test_nothing_read_is_no_accuracy(clf):
    with pytest.raises(InputError, match=r"no image can be read; the first: .*missing.png"):
        clf.score(["missing.png"], ["blue"], on_error="skip")
