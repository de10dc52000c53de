"""Only regular files with an image's header are read, and errors name up to five bad ones."""

import os
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from diffusion_classifier.datasets import load_image_folder
from diffusion_classifier.errors import (
    InputError,
    InputFileError,
    InputValueError,
    MissingFileError,
)
from diffusion_classifier.images import read_images
from diffusion_classifier.images.files import list_images
from tests.support.image_examples import PIXELS, Column, pixels, save_pictures


@pytest.fixture
def paths(tmp_path):
    return save_pictures(tmp_path)


# ------------------------------------------------------------------ regular files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_opened(paths, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputFileError, match=r"image 5: '.*pipe\.png' is a named pipe, not a"):
        read_images([*paths, tmp_path / "pipe.png"])
    # Also one that takes a file's place later.
    images = read_images(paths)
    paths[1].unlink()
    os.mkfifo(paths[1])
    with pytest.raises(InputFileError, match=r"image 1: '.*1\.png' is a named pipe"):
        images[1]


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs devices")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device):
    with pytest.raises(InputFileError, match=f"image 0: '{device}' is a device"):
        read_images([device])


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("s.png")
        with pytest.raises(InputFileError, match=r"image 0: 's\.png' is a socket"):
            read_images(["s.png"])


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, ""])
def test_a_path_that_no_file_can_have_is_missing_and_quoted_briefly(path):
    with pytest.raises(MissingFileError, match=r"image 0: .* does not exist") as error:
        read_images([path])
    assert len(str(error.value)) < 200


def test_links_are_followed(paths, tmp_path):
    (tmp_path / "link.png").symlink_to(paths[1])
    assert (pixels(read_images([tmp_path / "link.png"])[0]) == PIXELS[1]).all()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(MissingFileError, match="loop"):
        read_images([tmp_path / "loop.png"])


def test_postscript_is_not_run(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(InputValueError, match=r"image 0: '.*a\.png' is PostScript"):
        read_images([tmp_path / "a.png"])[0]


# ------------------------------------------------------------------ headers


def test_the_headers_of_all_files_are_checked_without_decoding(paths, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", None)  # nothing is decoded
    read_images([*paths, PIXELS[0]]).check_files()
    paths[1].write_bytes(paths[1].read_bytes()[:20])
    paths[3].write_text("no picture")
    images = read_images(paths)
    with pytest.raises(InputValueError) as error:
        images.check_files()
    assert str(error.value).startswith("2 images cannot be read: image 1: '")
    assert "image 3: '" in str(error.value) and "its format is not known" in str(error.value)
    images[[0, 2, 2, 4]].check_files()
    with pytest.raises(InputValueError, match=r"^image 3: '.*3\.png' cannot be read"):
        images[[0, 3, 3]].check_files()


def test_an_error_names_five_bad_images_and_counts_the_others(paths):
    nowhere = [f"nowhere{i}.png" for i in range(7)]
    with pytest.raises(MissingFileError) as error:
        read_images([*paths, *nowhere, None])
    assert str(error.value).startswith("8 images cannot be read: image 5: 'nowhere0.png' does not")
    assert "image 9: 'nowhere4.png'" in str(error.value)
    assert "nowhere5" not in str(error.value) and str(error.value).endswith("And 3 more.")


def test_many_headers_are_checked_by_a_bounded_number_of_threads(paths, monkeypatch):
    most = []
    open_image = Image.open

    def counted(path):
        most.append(sum(t.name.startswith("headers") for t in threading.enumerate()))
        return open_image(path)

    monkeypatch.setattr(Image, "open", counted)
    read_images(paths * 200).check_files()
    assert len(most) == 1000 and 1 <= max(most) <= 8
    assert not [t for t in threading.enumerate() if t.name.startswith("headers")]


def test_lazy_columns_are_left_alone(paths):
    column = Column(paths)
    read_images(column).check_files()
    assert column.reads == 0


def test_a_picture_beyond_the_limit_of_pillow_is_named(paths, monkeypatch):
    images = read_images(paths)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for read in (lambda: images[[2]].check_files(), lambda: images[2]):
        with pytest.raises(InputValueError, match=r"image 2: '.*2\.png' has too many pixels .*42"):
            read()


def test_a_picture_of_more_than_a_million_pixels_in_line_is_refused(tmp_path):
    Image.new("1", (10**6 + 1, 1)).save(tmp_path / "line.png")
    array = np.zeros((1, 10**6 + 1), np.uint8)
    for X in ([tmp_path / "line.png"], [array], [Image.fromarray(array)]):
        with pytest.raises(
            InputValueError, match=r"image 0.* has size .*1000001.*longest side allowed"
        ):
            read_images(X)[0]


def test_a_bad_image_in_memory_or_a_missing_file_can_wait_for_its_turn(paths):
    items = [PIXELS[0], None, PIXELS[2] / 1.0, "nowhere.png", *paths[4:]]
    images = read_images(items, check=False)
    assert (pixels(images[0]) == PIXELS[0]).all() and (pixels(images[4]) == PIXELS[4]).all()
    for index in (1, 2, 3):
        with pytest.raises(InputError, match=f"image {index}"):
            images[index]
    floats = PIXELS / 255
    floats[1, 0, 0, 0] = np.nan
    images = read_images(floats, check=False)
    assert (pixels(images[2]) == PIXELS[2]).all()
    with pytest.raises(InputValueError, match="image 1 holds NaN"):
        images[1]


# ------------------------------------------------------------------ folders


def test_a_folder_is_its_images_sorted_by_name(tmp_path):
    for name, index in (("b.PNG", 1), ("a.png", 0), ("c.tif", 2), ("10.png", 3)):
        Image.fromarray(PIXELS[index]).save(tmp_path / name)
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    for X in (str(tmp_path), tmp_path):
        images = read_images(X)
        assert [pixels(image).tolist() for image in images] == PIXELS[[3, 0, 1, 2]].tolist()
    assert [os.path.basename(path) for path in list_images(tmp_path)] == [
        "10.png", "a.png", "b.PNG", "c.tif",
    ]  # fmt: skip


def test_a_folder_of_class_folders_or_of_no_images_is_refused(tmp_path):
    with pytest.raises(InputValueError, match=r"folder '.*' holds no images \(\.bmp, "):
        read_images(tmp_path)
    (tmp_path / "cat").mkdir()
    save_pictures(tmp_path / "cat")
    with pytest.raises(InputValueError, match=r"sub-folders, \['cat'\].*load_image_folder"):
        read_images(str(tmp_path))
    assert len(read_images(load_image_folder(tmp_path).paths)) == 5


def test_a_folder_in_a_list_is_refused(paths, tmp_path):
    with pytest.raises(InputValueError, match=r"image 1: '.*' is a folder.*load_image_folder"):
        read_images([paths[0], tmp_path])
