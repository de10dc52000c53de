"""Every picture becomes canonical RGB; what is no picture is named and explained."""

import pathlib
import struct

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.errors import InputError
from diffusion_classifier.images import as_images, read_images
from diffusion_classifier.pruners import NoPruning
from tests.support.image_examples import (
    PIXELS,
    Column,
    Labelled,
    objects,
    pictures,
    pixels,
    save_odd_pictures,
    save_pictures,
)


@pytest.fixture
def paths(tmp_path):
    return save_pictures(tmp_path)


# ------------------------------------------------------- canonical RGB pictures


@pytest.mark.parametrize("form", ["file", "PIL"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
)
def test_exif_orientation_is_applied(form, orientation, undo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures()[0].save(tmp_path / "turned.png", exif=exif)
    path = tmp_path / "turned.png"
    image = read_images([path if form == "file" else Image.open(path)])[0]
    assert (pixels(image) == undo(PIXELS[0])).all()


def test_sixteen_bit_files_are_scaled_not_saturated(tmp_path):
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(values).save(tmp_path / name)
        image = read_images([tmp_path / name])[0]
        assert pixels(image)[..., 0].tolist() == [[0, 0, 1, 1, 128, 255]]
    assert pixels(read_images(values[None])[0])[..., 0].tolist() == [[0, 0, 1, 1, 128, 255]]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        ([0, 0], [0, 0]),
        ([0, 2], [0, 2]),
        ([7, 255], [7, 255]),
        ([0, 4096], [0, 16]),
        ([128, 65535], [0, 255]),
        ([257, 32896, 65535], [1, 128, 255]),
    ],
)
def test_the_largest_of_32_bit_values_tells_their_scale(values, grey, tmp_path):
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert image.mode == "I"
    image.save(tmp_path / "grey.tif")
    for X in ([image], [tmp_path / "grey.tif"]):
        assert pixels(read_images(X)[0])[0, :, 0].tolist() == grey


@pytest.mark.parametrize("values", [[0, 1], [0, 256], [3, 1023], [0, 4095], [-1, 255], [0, 70000]])
def test_32_bit_values_of_unknown_scale_are_refused_with_the_conversion(values):
    image = Image.fromarray(np.array([values], dtype=np.int32))
    low, high = values
    with pytest.raises(ValueError, match=rf"image 0 has 32-bit values in \[{low}, {high}\]") as e:
        read_images([image])[0]
    assert "np.clip(np.asarray(image) * 255.0 / white, 0, 255)" in str(e.value)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_pictures_keep_their_scale_when_they_are_dark(mode):
    image = Image.new(mode, (2, 1), 255)
    assert pixels(read_images([image])[0])[0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("white", "value", "grey"), [(65535, 257, 1), (65535, 0, 0), (1000, 500, 128)]
)
def test_a_pgm_file_of_more_than_8_bits_has_the_scale_of_its_header(white, value, grey, tmp_path):
    (tmp_path / "a.pgm").write_text(f"P2 2 1 {white} {value} {value}")
    assert pixels(read_images([tmp_path / "a.pgm"])[0])[0, 0, 0] == grey


def test_a_tiff_file_of_12_bits_is_white_at_4095(tmp_path):
    data = bytes.fromhex("000 7FF 800 FFF".replace(" ", ""))
    entries = {  # width, height, bits, no compression, 0 is black, offset, channels, rows, bytes
        256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: len(data),
    }  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    (tmp_path / "a.tif").write_bytes(header + tags + bytes(4) + data)
    image = read_images([tmp_path / "a.tif"])[0]
    assert pixels(image)[0, :, 0].tolist() == [0, 127, 128, 255]


def test_a_picture_of_floats_is_read_from_0_to_1_only():
    image = read_images([Image.fromarray(np.array([[0, 0.25, 1]], np.float32))])[0]
    assert pixels(image)[0, :, 0].tolist() == [0, 64, 255]
    with pytest.raises(ValueError, match=r"image 0 has floats in \[0, 255\].*divide by 255"):
        read_images([Image.fromarray(np.array([[0, 255]], np.float32))])[0]


def test_floats_are_rounded_to_the_nearest_grey_level():
    image = read_images(np.array([[[0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1]]]))[0]
    assert pixels(image)[..., 0].tolist() == [[0, 0, 1, 255, 255]]


def test_floats_a_rounding_error_outside_the_range_are_taken():
    image = read_images(np.array([[[-1e-7, 1 + 1e-7]]]))[0]
    assert pixels(image)[..., 0].tolist() == [[0, 255]]


def test_transparency_is_dropped_and_palettes_are_looked_up(tmp_path):
    rgba = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    assert pixels(read_images([rgba])[0])[0, 0].tolist() == [10, 20, 30]
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80")
    assert pixels(read_images([tmp_path / "palette.png"])[0])[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 9, [9, 9, 9]),
        ("LA", (9, 1), [9, 9, 9]),
        ("CMYK", (0, 255, 255, 0), [255, 0, 0]),
        ("RGBX", (1, 2, 3, 4), [1, 2, 3]),
        ("HSV", (0, 255, 255), [255, 0, 0]),
    ],
)
def test_pictures_of_any_mode_become_rgb(mode, colour, rgb):
    assert pixels(read_images([Image.new(mode, (2, 2), colour)])[0])[1, 1].tolist() == rgb


def test_pictures_of_any_mode_and_size_give_the_probabilities_of_their_rgb(tmp_path):
    files, arrays = save_odd_pictures(tmp_path)
    clf = DiffusionClassifier(prompts="a {} digit", pruner=NoPruning(1), random_state=0)
    clf.fit(None, ["red", "green", "blue"])
    expected = clf.predict_proba(arrays)
    forms = {
        "paths": files,
        "opened": [Image.open(file) for file in files],
        "frame": pd.DataFrame({"image": [Image.open(file) for file in files]}),
        "tensors": [torch.from_numpy(array.copy()).permute(2, 0, 1) / 255 for array in arrays],
        "view": as_images(Labelled(files)),
    }
    for name, X in forms.items():
        np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6, err_msg=name)


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize("X", [[], (), np.zeros((0, 4, 4, 3)), np.array([], dtype=object)])
def test_no_images_are_refused(X):
    with pytest.raises(ValueError, match="no images"):
        read_images(X)


def test_an_empty_sub_sequence_is_refused_when_read():
    with pytest.raises(ValueError, match="no images"):
        read_images(read_images(PIXELS)[:0])


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_single_path_is_refused_with_the_way_out(kind, paths):
    for path in (kind(paths[0]), kind("nowhere.png")):
        with pytest.raises(TypeError, match=r"single path, '.*\.png'.* pass a list: \[path\]"):
            read_images(path)


def test_a_single_picture_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"wrap it in a list: \[image\]"):
        read_images(Image.new("RGB", (2, 2)))


@pytest.mark.parametrize(
    "X",
    [
        PIXELS[0],
        PIXELS[0][..., :1],
        torch.as_tensor(PIXELS[0]),
        torch.as_tensor(PIXELS[0]).permute(2, 0, 1),
    ],
)
def test_a_single_array_is_refused_with_the_way_out(X):
    with pytest.raises(ValueError, match=r"one image; wrap it in a list: \[image\]"):
        read_images(X)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((5, 12)),
        np.zeros(5),
        np.zeros((2, 5, 4, 4, 3)),
        torch.zeros(5, 12),
        np.empty((2, 2), object),
    ],
)
def test_arrays_of_other_shapes_are_refused_with_the_shapes_taken(X):
    with pytest.raises(ValueError) as error:
        read_images(X)
    assert str(tuple(X.shape)) in str(error.value)
    assert "[N, H, W, C], [N, C, H, W] or [N, H, W]" in str(error.value)


def test_a_table_of_several_columns_is_refused():
    with pytest.raises(ValueError, match=r"2 columns \('path', 'y'\).*image column"):
        read_images(pd.DataFrame({"path": ["a"], "y": [1]}))


@pytest.mark.parametrize(
    ("X", "name"),
    [({"image": 1}, "dict"), (5, "int"), (None, "NoneType"), ({1}, "set"), (iter([1]), "iterator")],
)
def test_an_x_that_is_no_sequence_is_refused_by_type(X, name):
    with pytest.raises(TypeError, match=f"X is of type .*{name}.*give a list"):
        read_images(X)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "image 1 is None"),
        (3.5, "image 1 is of type float"),
        (b"png", "image 1 is of type bytes"),
        ([[0, 1]], "image 1 is of type list"),
    ],
)
def test_an_element_of_a_wrong_type_is_named_before_any_work(item, message):
    with pytest.raises(TypeError, match=message):
        read_images([PIXELS[0], item])
    with pytest.raises(TypeError, match=message):
        read_images(pd.Series([PIXELS[0], item]))


def test_rows_of_a_hugging_face_dataset_point_to_its_image_column():
    with pytest.raises(TypeError, match=r'image 0 is of type dict.*dataset\["image"\]'):
        read_images(Column([{"image": PIXELS[0], "label": 1}]))[0]


@pytest.mark.parametrize(
    "item",
    [np.zeros((4, 0, 3), np.uint8), torch.zeros(3, 0, 4), Image.new("RGB", (0, 4)), np.zeros(0)],
)
def test_a_picture_of_zero_size_is_named(item):
    with pytest.raises(ValueError, match="image 1 has zero size"):
        read_images([PIXELS[0], item])


def test_an_array_of_pictures_of_zero_size_is_refused():
    with pytest.raises(ValueError, match=r"image 0 has zero size: \(0, 4, 3\)"):
        read_images(np.zeros((2, 0, 4, 3)))


@pytest.mark.parametrize("form", [np.stack, list, lambda items: torch.as_tensor(np.stack(items))])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "image 2 holds NaN or infinite values"),
        (np.inf, "image 2 holds NaN or infinite values"),
        (-np.inf, "image 2 holds NaN or infinite values"),
        (255.0, r"image 2 has floats in \[0, 255\], outside \[0, 1\]; divide by 255"),
        (-1.0, r"image 2 has floats in \[-1, 0\], outside \[0, 1\]; .*\(image \+ 1\) / 2"),
    ],
)
def test_floats_that_are_no_picture_are_named_before_any_work(form, value, message):
    items = [np.zeros((4, 4, 3)) for _ in range(4)]
    items[2][0, 0, 0] = value
    with pytest.raises(ValueError, match=message):
        read_images(form(items))


def test_a_lazy_picture_out_of_range_is_named_when_it_is_read():
    images = as_images(Labelled([PIXELS[0], PIXELS[1] * 1.0]))
    with pytest.raises(ValueError, match="image 1 has floats in"):
        images[1]


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.complex64, np.uint32])
def test_arrays_of_other_dtypes_are_refused_with_those_taken(dtype):
    for X in (PIXELS.astype(dtype), list(PIXELS.astype(dtype))):
        with pytest.raises(ValueError, match=rf"image 0 has dtype {np.dtype(dtype)}.*uint8"):
            read_images(X)


@pytest.mark.parametrize("shape", [(5, 5, 2), (2, 5, 5), (1, 3, 5, 5), (12,)])
def test_a_picture_without_a_channel_axis_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError) as error:
        read_images([np.zeros(shape)])
    assert f"image 0 has shape {shape}" in str(error.value)
    assert "[H, W, C], [C, H, W] or [H, W] with C = 1, 3 or 4" in str(error.value)


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_missing_file_is_named_before_any_work(kind, paths):
    with pytest.raises(FileNotFoundError, match=r"image 2: '.*nowhere\.png' does not exist"):
        read_images([*paths[:2], kind("nowhere.png"), *paths[2:]])


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(ValueError, match=r"image 0: '.*' is a folder.*load_image_folder"):
        read_images([tmp_path])


def test_a_file_that_is_no_image_is_named(paths):
    paths[1].write_text("not a picture")
    images = read_images(paths)
    assert (pixels(images[0]) == PIXELS[0]).all()
    with pytest.raises(ValueError, match=r"image 1: '.*1\.png' cannot be read as an image"):
        images[1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif"])
def test_a_truncated_file_is_named(suffix, tmp_path):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"image 0: '.*cut\..*' cannot be read as an image"):
        read_images([path])[0]


@pytest.mark.parametrize(
    "form", [lambda X: X, list, lambda X: objects(list(X)), lambda X: Column(list(X))]
)
def test_masked_values_are_refused_and_a_mask_of_nothing_is_no_mask(form):
    X = np.ma.array(PIXELS, mask=np.zeros_like(PIXELS, bool))
    assert (pixels(read_images(form(X))[2]) == PIXELS[2]).all()
    X[2, 0, 0, 1] = np.ma.masked
    with pytest.raises(ValueError, match=r"(X|image 2) is a masked array with 1 masked value"):
        read_images(form(X))[2]


def test_a_picture_in_a_mode_without_rgb_is_named():
    with pytest.raises(InputError, match="image 0 cannot be read as an image"):
        read_images([Image.new("La", (2, 2))])[0]


def test_a_picture_whose_file_was_closed_is_named(paths):
    with Image.open(paths[0]) as image:
        pass
    with pytest.raises(ValueError, match="image 0 cannot be read"):
        read_images([image])[0]


def test_errors_in_a_sub_sequence_name_the_place_in_the_whole(paths):
    paths[3].write_text("not a picture")
    with pytest.raises(ValueError, match="image 3"):
        read_images(paths)[2:][1]
