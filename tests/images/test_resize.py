"""Pictures are resized as diffusers does it, and stacked into batches in [-1, 1]."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

from diffusion_classifier.images.resize import RESIZE_MODES, resize_image, to_tensor_batch
from tests.support.image_examples import PIXELS, pictures, pixels, save_pictures


@pytest.fixture
def paths(tmp_path):
    return save_pictures(tmp_path)


# --------------------------------------------------------------------- resizing


def photograph(width, height):
    """A smooth picture with a few harder edges."""
    y, x = np.mgrid[:height, :width]
    wave = 127 + 90 * np.sin(6 * x / width) * np.cos(4 * y / height)
    disc = 200 * (np.hypot(x - width / 3, y - height / 2) < height / 4)
    ramp = 255 * (x + y) / (width + height)
    return Image.fromarray(np.stack([wave, np.maximum(disc, 30), ramp], 2).astype(np.uint8))


SIZES = [
    ((101, 67), (32, 32)),
    ((67, 101), (32, 32)),
    ((97, 64), (32, 48)),
    ((20, 33), (64, 64)),
    ((64, 48), (32, 32)),
]


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_crop_equals_the_diffusers_preprocessor(source, size):
    image = photograph(*source)
    processor = VaeImageProcessor(do_convert_rgb=True, resample="bicubic")
    theirs = processor.preprocess(image, *size, resize_mode="crop")
    ours = to_tensor_batch([resize_image(image, size, "crop")])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_crop_keeps_the_centre_of_a_short_side_resize(source, size):
    image = photograph(*source)
    short = min(image.width / size[1], image.height / size[0])
    width, height = int(image.width / short + 1e-9), int(image.height / short + 1e-9)
    left, top = (width - size[1]) // 2, (height - size[0]) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    expected = resized.crop((left, top, left + size[1], top + size[0]))
    assert (pixels(resize_image(image, size, "crop")) == pixels(expected)).all()


def test_crop_loses_the_ends_of_the_long_side_only():
    image = Image.new("RGB", (40, 10), (9, 9, 9))
    image.paste((255, 0, 0), (0, 0, 10, 10))
    image.paste((0, 0, 255), (30, 0, 40, 10))
    assert (pixels(resize_image(image, (10, 10), "crop")) == 9).all()


def test_pad_shows_the_whole_picture_between_black_bars():
    padded = pixels(resize_image(Image.new("RGB", (40, 20), (255, 255, 255)), (20, 20), "pad"))
    assert (padded[:5] == 0).all()
    assert (padded[5:15] == 255).all()
    assert (padded[15:] == 0).all()


@pytest.mark.parametrize(("source", "size"), [((64, 32), (32, 32)), ((32, 64), (16, 32))])
def test_pad_equals_the_padding_of_pillow(source, size):
    image = photograph(*source)
    expected = ImageOps.pad(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    assert (pixels(resize_image(image, size, "pad")) == pixels(expected)).all()


def test_pad_keeps_a_picture_of_one_row_in_sight():
    line = resize_image(Image.new("RGB", (1000, 1), (255, 255, 255)), (8, 8), "pad")
    assert pixels(line).max(axis=(1, 2)).tolist().count(255) == 1


def plain_crop(image, size):
    """The whole picture scaled, then cropped."""
    scale = max(size[1] / image.width, size[0] / image.height)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = width // 2 - size[1] // 2, height // 2 - size[0] // 2
    whole = image.resize((width, height), Image.Resampling.BICUBIC)
    return whole.crop((left, top, left + size[1], top + size[0]))


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(("length", "size"), [(1000, 8), (1001, 32), (400, 64)])
def test_a_long_picture_is_cropped_as_if_it_were_scaled_first(length, size, turn):
    noise = np.random.default_rng(0).integers(0, 256, (1, length, 3), dtype=np.uint8)
    image = Image.fromarray(noise.transpose(1, 0, 2) if turn else noise)
    expected = pixels(plain_crop(image, (size, size)))
    assert (pixels(resize_image(image, (size, size), "crop")) == expected).all()


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("source", [(1000, 1), (10**6, 1), (1, 10**6), (3, 300_000)])
def test_the_work_is_bounded_by_the_sizes_of_both_pictures(source, mode, monkeypatch):
    made = []
    resize = Image.Image.resize

    def counted(self, size, *options):
        made.append(size[0] * size[1])
        box = options[1] if len(options) > 1 else (0, 0, *self.size)
        made.append(size[0] * (box[3] - box[1]))  # after the rows, before the columns
        return resize(self, size, *options)

    monkeypatch.setattr(Image.Image, "resize", counted)
    image = Image.new("RGB", source, (9, 8, 7))
    resized = pixels(resize_image(image, (64, 64), mode))
    assert resized.max((0, 1)).tolist() == [9, 8, 7]
    assert max(made) <= 16 * max(source[0] * source[1], 64 * 64)


def test_squash_distorts_the_whole_picture_to_the_size():
    image = photograph(40, 20)
    expected = image.resize((12, 16), Image.Resampling.BICUBIC)
    assert (pixels(resize_image(image, (16, 12), "squash")) == pixels(expected)).all()


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("source", [(7, 31), (31, 7), (8, 8), (100, 99)])
def test_every_mode_gives_the_size_asked_for(mode, source):
    assert resize_image(photograph(*source), (12, 20), mode).size == (20, 12)


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("size", [None, (7, 6)])
def test_a_picture_of_the_right_size_is_returned_untouched(mode, size):
    image = pictures()[0]
    assert resize_image(image, size, mode) is image


def test_an_unknown_mode_is_refused_with_the_known_ones():
    for size in (None, (4, 4)):
        with pytest.raises(ValueError, match=r"'stretch' is not known.*'crop', 'pad', 'squash'"):
            resize_image(pictures()[0], size, "stretch")


# ---------------------------------------------------------------------- batches


def test_a_batch_maps_black_to_minus_one_and_white_to_one():
    batch = to_tensor_batch(pictures())
    assert batch.shape == (5, 3, 7, 6)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous()
    expected = torch.as_tensor(PIXELS).permute(0, 3, 1, 2).double() / 127.5 - 1
    torch.testing.assert_close(batch.double(), expected, atol=1e-7, rtol=0)
    ends = to_tensor_batch([Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1), (255, 255, 255))])
    assert ends.flatten(1).tolist() == [[-1, -1, -1], [1, 1, 1]]


def test_a_batch_of_mixed_sizes_is_refused_with_sizes_and_way_out():
    with pytest.raises(ValueError, match=r"\(height, width\) \(4, 3\), \(5, 6\).*image_size"):
        to_tensor_batch([Image.new("RGB", (3, 4)), Image.new("RGB", (6, 5))])
