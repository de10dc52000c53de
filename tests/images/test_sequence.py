"""Any form of X is the same lazy sequence of RGB pictures, which scikit-learn can index."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.utils import _safe_indexing
from torch.utils.data import TensorDataset

from diffusion_classifier.images import ImageSequence, as_images, read_images
from tests.support.image_examples import (
    GREY,
    PIXELS,
    Column,
    Labelled,
    objects,
    pictures,
    pixels,
    save_pictures,
)


@pytest.fixture
def paths(tmp_path):
    return save_pictures(tmp_path)


# ------------------------------------------------------------------ forms of X

COLOUR_FORMS = {
    "list of PIL": pictures,
    "tuple of PIL": lambda: tuple(pictures()),
    "NHWC uint8": lambda: PIXELS,
    "NCHW uint8": lambda: PIXELS.transpose(0, 3, 1, 2),
    "NHWC float64": lambda: PIXELS / 255,
    "NCHW float32": lambda: (PIXELS / 255).astype(np.float32).transpose(0, 3, 1, 2),
    "NHWC float16": lambda: (PIXELS / 255).astype(np.float16),
    "NHWC uint16": lambda: PIXELS.astype(np.uint16) * 257,
    "NHWC big-endian uint16": lambda: (PIXELS.astype(np.uint16) * 257).astype(">u2"),
    "NHWC read only": lambda: np.frombuffer(PIXELS.tobytes(), np.uint8).reshape(PIXELS.shape),
    "NHWC opaque RGBA": lambda: np.pad(
        PIXELS, [(0, 0), (0, 0), (0, 0), (0, 1)], constant_values=255
    ),
    "tensor NCHW uint8": lambda: torch.as_tensor(PIXELS).permute(0, 3, 1, 2),
    "tensor NHWC uint8": lambda: torch.as_tensor(PIXELS),
    "tensor NCHW float": lambda: torch.as_tensor(PIXELS).permute(0, 3, 1, 2) / 255,
    "tensor NHWC half": lambda: (torch.as_tensor(PIXELS) / 255).half(),
    "tensor with gradient": lambda: (torch.as_tensor(PIXELS) / 255).requires_grad_(),
    "list of arrays": lambda: list(PIXELS),
    "list of CHW tensors": lambda: list(torch.as_tensor(PIXELS).permute(0, 3, 1, 2)),
    "mixed list": lambda: [
        pictures()[0],
        PIXELS[1],
        PIXELS[2] / 255,
        torch.as_tensor(PIXELS[3]).permute(2, 0, 1),
        PIXELS[4].transpose(2, 0, 1),
    ],
    "object array of PIL": lambda: objects(pictures()),
    "object array of arrays": lambda: objects(list(PIXELS)),
    "object array of one column": lambda: objects(pictures())[:, None],
    "Series of PIL": lambda: pd.Series(pictures(), index=list("edcba")),
    "DataFrame of one column": lambda: pd.DataFrame({"image": pictures()}, index=[9, 8, 7, 6, 5]),
    "lazy column": lambda: Column(pictures()),
    "ImageSequence": lambda: read_images(pictures()),
    "torch Dataset as images": lambda: as_images(Labelled()),
}


@pytest.mark.parametrize("form", COLOUR_FORMS)
def test_the_same_pictures_give_the_same_pixels_in_every_form(form):
    images = read_images(COLOUR_FORMS[form]())
    assert isinstance(images, ImageSequence)
    assert len(images) == len(PIXELS)
    for image, expected in zip(images, PIXELS, strict=True):
        assert (pixels(image) == expected).all()


PATH_FORMS = {
    "list of str": lambda paths: [str(path) for path in paths],
    "list of pathlib": list,
    "string array": lambda paths: np.array([str(path) for path in paths]),
    "string column": lambda paths: np.array([[str(path)] for path in paths]),
    "variable-width strings": lambda paths: np.array(
        [str(path) for path in paths], dtype=np.dtypes.StringDType()
    ),
    "object array": objects,
    "Series of str": lambda paths: pd.Series([str(path) for path in paths]),
    "Series of pathlib": lambda paths: pd.Series(paths),
    "DataFrame": lambda paths: pd.DataFrame({"path": [str(path) for path in paths]}),
    "mixed with pictures": lambda paths: [*paths[:3], *pictures()[3:]],
}


@pytest.mark.parametrize("form", PATH_FORMS)
def test_files_give_the_pixels_they_were_saved_from(form, paths):
    images = read_images(PATH_FORMS[form](paths))
    assert len(images) == len(PIXELS)
    for image, expected in zip(images, PIXELS, strict=True):
        assert (pixels(image) == expected).all()


GREY_FORMS = {
    "PIL L": lambda: [Image.fromarray(array) for array in GREY],
    "PIL I;16": lambda: [Image.fromarray(array.astype(np.uint16) * 257) for array in GREY],
    "PIL I": lambda: [Image.fromarray(array.astype(np.int32) * 257) for array in GREY],
    "PIL F": lambda: [Image.fromarray(array.astype(np.float32) / 255) for array in GREY],
    "PIL palette": lambda: [Image.fromarray(array).convert("P") for array in GREY],
    "PIL LA": lambda: [Image.fromarray(array).convert("LA") for array in GREY],
    "NHW uint8": lambda: GREY,
    "NHW float": lambda: GREY / 255,
    "NHW uint16": lambda: GREY.astype(np.uint16) * 257,
    "NHW1": lambda: GREY[..., None],
    "N1HW": lambda: GREY[:, None],
    "tensor NHW": lambda: torch.as_tensor(GREY),
    "tensor N1HW": lambda: torch.as_tensor(GREY)[:, None],
    "tensor uint16": lambda: torch.as_tensor(GREY.astype(np.uint16) * 257),
    "list of HW arrays": lambda: list(GREY),
}


@pytest.mark.parametrize("form", GREY_FORMS)
def test_grey_pictures_give_three_equal_channels(form):
    for image, expected in zip(read_images(GREY_FORMS[form]()), GREY, strict=True):
        assert (pixels(image) == expected[..., None]).all()


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_booleans_are_black_and_white(make):
    image = read_images(make([[[True, False], [False, True]]]))[0]
    assert pixels(image)[..., 0].tolist() == [[255, 0], [0, 255]]


def test_three_grey_pictures_are_three_pictures():
    assert len(read_images(GREY[:3])) == 3
    assert len(read_images(GREY[:1])) == 1


def test_pictures_of_mixed_sizes_keep_their_own():
    images = read_images([Image.new("RGB", (3, 4)), np.zeros((5, 6), np.uint8)])
    assert [image.size for image in images] == [(3, 4), (6, 5)]


def test_an_ambiguous_channel_axis_is_the_last_in_numpy_and_the_first_in_torch():
    array = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(1, 3, 5, 3)
    assert (pixels(read_images(array)[0]) == array[0]).all()
    tensor = torch.as_tensor(array)
    assert (pixels(read_images(tensor)[0]) == array[0].transpose(1, 2, 0)).all()


def test_reading_leaves_the_given_pictures_as_they_were():
    image = Image.new("L", (4, 2), 7)
    image.getexif()[0x0112] = 6
    assert read_images([image])[0].size == (2, 4)
    assert (image.mode, image.size) == ("L", (4, 2))


# --------------------------------------------------------- laziness and indexing


def test_a_lazy_column_is_read_one_picture_at_a_time():
    column = Column(pictures())
    images = read_images(column)
    assert len(images[1:]) == 4
    assert column.reads == 0
    assert (pixels(images[3]) == PIXELS[3]).all()
    assert column.reads == 1


def test_files_are_not_opened_before_they_are_asked_for(tmp_path):
    (tmp_path / "late.png").touch()
    images = read_images([tmp_path / "late.png"])
    pictures()[0].save(tmp_path / "late.png")
    assert (pixels(images[0]) == PIXELS[0]).all()


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [4, 2, 0]),
        ([3, 0, 3], [3, 0, 3]),
        ([], []),
        (np.array([4, -1, 1]), [4, 4, 1]),
        (torch.tensor([2, 1]), [2, 1]),
        (np.array([True, False, False, True, False]), [0, 3]),
        ([False, True, False, False, False], [1]),
    ],
)
def test_slices_lists_arrays_and_masks_pick_a_sub_sequence(index, expected):
    part = read_images(PIXELS)[index]
    assert isinstance(part, ImageSequence)
    assert len(part) == len(expected)
    assert [pixels(image).tolist() for image in part] == [PIXELS[i].tolist() for i in expected]
    assert [pixels(i).tolist() for i in part[::-1]] == [PIXELS[i].tolist() for i in expected[::-1]]


@pytest.mark.parametrize(("index", "expected"), [(2, 2), (-1, 4), (np.int64(3), 3)])
def test_an_integer_gives_one_picture(index, expected):
    assert (pixels(read_images(PIXELS)[index]) == PIXELS[expected]).all()


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexError, match="5 is out of bounds"):
        read_images(PIXELS)[5]


def test_a_sequence_says_how_many_pictures_it_has():
    assert repr(read_images(PIXELS)[:2]) == "ImageSequence(n_images=2)"


def test_a_sequence_read_again_is_itself():
    images = read_images(PIXELS)
    assert read_images(images) is images


def test_a_sequence_survives_pickling():
    images = pickle.loads(pickle.dumps(read_images(pictures())[[4, 2]]))
    assert (pixels(images[1]) == PIXELS[2]).all()


@pytest.mark.parametrize(
    "index", [slice(1, 3), [1, 2], np.array([1, 2]), np.array([False, True, True, False, False])]
)
def test_scikit_learn_indexes_a_sequence_without_decoding_it(index):
    dataset = Labelled()
    part = _safe_indexing(as_images(dataset), index)
    assert isinstance(part, ImageSequence)
    assert dataset.reads == 0
    assert [pixels(image).tolist() for image in part] == PIXELS[1:3].tolist()


class Brightness(ClassifierMixin, BaseEstimator):
    """Bright or not, by a threshold half-way between the two class means."""

    def fit(self, X, y):
        means = np.array([pixels(image).mean() for image in read_images(X)])
        self.classes_ = np.unique(y)
        self.threshold_ = np.mean([means[y == c].mean() for c in self.classes_])
        return self

    def predict(self, X):
        means = [pixels(image).mean() for image in read_images(X)]
        return self.classes_[(np.array(means) > self.threshold_).astype(int)]


@pytest.mark.parametrize("form", [read_images, lambda X: as_images(Labelled(list(X)))])
def test_cross_validation_runs_on_a_sequence(form):
    y = np.arange(12) % 2
    X = (40 + 150 * y[:, None, None, None] + np.zeros((12, 4, 4, 3))).astype(np.uint8)
    assert cross_val_score(Brightness(), form(X), y, cv=3).tolist() == [1, 1, 1]
    train, test, y_train, y_test = train_test_split(form(X), y, random_state=0)
    assert (len(train), len(test)) == (9, 3)
    assert Brightness().fit(train, y_train).score(test, y_test) == 1


# ------------------------------------------------------------- torch's datasets


def test_a_torch_dataset_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"torch Dataset \(Labelled\).*as_images\(dataset\)"):
        read_images(Labelled())


def test_the_first_element_of_each_item_is_its_picture():
    dataset = Labelled()
    images = as_images(dataset)
    assert len(images) == 5
    assert dataset.reads == 0
    assert (pixels(images[2]) == PIXELS[2]).all()
    assert dataset.reads == 1


def test_a_dataset_of_tensors_is_viewed_too():
    images = torch.as_tensor(PIXELS).permute(0, 3, 1, 2)
    assert (pixels(as_images(TensorDataset(images, torch.arange(5)))[4]) == PIXELS[4]).all()


def test_a_dataset_whose_items_are_pictures_alone_is_viewed_as_it_is():
    assert (pixels(as_images(list(PIXELS))[1]) == PIXELS[1]).all()


def test_a_dataset_without_length_or_pictures_is_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(PIXELS)

    with pytest.raises(TypeError, match=r"Stream has no length.*list"):
        as_images(Stream())
    with pytest.raises(ValueError, match="no images"):
        as_images(Labelled([]))
