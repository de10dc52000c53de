"""The image column of a Hugging Face data set, as the library itself makes it."""

import pickle

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import cross_val_score

from diffusion_classifier import DiffusionClassifier, as_images
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.images import ImageSequence, read_images
from diffusion_classifier.pruners import NoPruning
from tests.support.image_examples import PIXELS, pictures, pixels, save_odd_pictures, save_pictures

FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})


def data_set(images):
    rows = {"image": list(images), "label": ["a", "b", "c", "d", "e", "f"][: len(images)]}
    return datasets.Dataset.from_dict(rows, features=FEATURES)


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_a_column_gives_the_pixels_of_its_pictures(form):
    column = data_set(pictures()).with_format(form)["image"]
    assert not isinstance(column, list)  # read lazily, from its fourth release on
    images = read_images(column)
    assert isinstance(images, ImageSequence) and len(images) == 5
    for image, expected in zip(images, PIXELS, strict=True):
        assert (pixels(image) == expected).all()
    assert (pixels(images[::2][1]) == PIXELS[2]).all()


def test_a_column_of_files_is_canonical_as_the_files_are(tmp_path):
    files, expected = save_odd_pictures(tmp_path)
    column = data_set([str(file) for file in files])["image"]
    for image, array in zip(read_images(column), expected, strict=True):
        assert (pixels(image) == array).all()


def test_a_column_gives_the_same_probabilities_whole_or_in_folds(monkeypatch):
    scenes = load_scenes("test", n_samples=6)
    rows = data_set([Image.fromarray(image) for image in scenes.images])
    clf = DiffusionClassifier(prompts="a {} digit", pruner=NoPruning(2), random_state=0)
    clf.fit(None, ["red", "green", "blue"])
    expected = clf.predict_proba(scenes.images)
    for X in (rows["image"], as_images(rows["image"]), rows[:]["image"]):
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
    y = ["red", "green", "blue"] * 2
    scores = cross_val_score(clf, scenes.images, y, cv=2)
    view = as_images(rows["image"])
    for X in (rows["image"], view):
        np.testing.assert_array_equal(cross_val_score(clf, X, y, cv=2), scores)
    # The view is split without decoding a picture.
    monkeypatch.setattr(datasets.Image, "decode_example", None)
    assert len(view[[0, 2]]) == 2
    with pytest.raises(TypeError):
        rows["image"][0]


def test_a_column_survives_pickling(tmp_path):
    rows = data_set([str(path) for path in save_pictures(tmp_path)])
    copy = pickle.loads(pickle.dumps(read_images(rows["image"])[1:3]))
    assert (pixels(copy[0]) == PIXELS[1]).all() and len(copy) == 2


def test_a_whole_data_set_is_refused_with_its_columns():
    rows = data_set(pictures())
    for whole in (rows, datasets.DatasetDict(train=rows), rows.to_iterable_dataset()):
        with pytest.raises(TypeError, match=r"columns .*'image', 'label'.*dataset\[\"image\"\]"):
            read_images(whole)
        with pytest.raises(TypeError, match="whole data set"):
            DiffusionClassifier().fit(whole, list("abcde"))


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
    paths = save_pictures(tmp_path)
    rows = data_set([str(path) for path in paths])
    paths[3].write_text("not a picture")
    images = read_images(rows["image"])
    assert (pixels(images[2]) == PIXELS[2]).all()
    with pytest.raises(ValueError, match=r"image 3 cannot be read .*UnidentifiedImageError"):
        images[3]


def test_a_column_without_decoding_says_how_to_decode():
    rows = data_set(pictures()).cast_column("image", datasets.Image(decode=False))
    with pytest.raises(TypeError, match=r"image 0 is of type dict.*datasets\.Image\(\)"):
        read_images(rows["image"])[0]
