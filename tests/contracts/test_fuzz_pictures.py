"""Whatever X is, reading it gives pictures in RGB or an error of this package."""

import io
import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_classifier.errors import InputError
from diffusion_classifier.images import read_images
from diffusion_classifier.images.resize import RESIZE_MODES, resize_image
from tests.support.fuzz import FUZZ

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "PCX", "TGA", "SGI", "MPO")
MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr")


@st.composite
def files(draw):
    """The bytes of a picture in some mode and format, some of them changed or cut off."""
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    image, file = Image.new(mode, size, draw(st.integers(0, 1))), io.BytesIO()
    try:
        image.save(file, kind)
    except (OSError, ValueError, KeyError):  # not every format keeps every mode
        image.convert("RGB").save(file, kind)
    content = bytearray(file.getvalue())
    for place, value in draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = value
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def assert_read_or_refused(X):
    """X gives RGB pictures that can be resized, or an error of this package."""
    try:
        for image in read_images(X):
            assert image.mode == "RGB"
            for mode in RESIZE_MODES:
                assert resize_image(image, (8, 6), mode).size == (6, 8)
    except InputError as error:
        assert len(str(error)) < 1000


@FUZZ
@given(content=files() | st.binary(max_size=200))
def test_any_file_is_read_or_refused(content, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        assert_read_or_refused([path])


@st.composite
def arrays(draw):
    """Arrays of any dtype and shape, with any values."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    dtype = draw(
        st.sampled_from(["u1", "<u2", ">u2", "i4", "i8", "?", "f2", "f4", "f8", "c8", "O", "U3"])
    )
    value = draw(st.sampled_from([0, 1, 200, -1, 0.5, np.nan, np.inf, 1e30]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.full(shape, value).astype(dtype)
    return np.ma.array(array, mask=draw(st.booleans())) if draw(st.booleans()) else array


ITEMS = st.one_of(
    arrays(),
    st.none() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    st.builds(
        lambda mode, size: Image.new(mode, size),
        st.sampled_from(MODES),
        st.tuples(st.integers(0, 2000), st.integers(0, 3)),
    ),
)


@FUZZ
@given(X=arrays() | st.lists(ITEMS, max_size=3) | ITEMS)
def test_any_x_is_read_or_refused(X):
    assert_read_or_refused(X)
