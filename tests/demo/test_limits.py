"""What visitors send is bounded, before a picture is decoded."""

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from diffusion_classifier.demo import Limits
from diffusion_classifier.demo.view import error_html, text
from diffusion_classifier.errors import InputError, InputValueError


def png(width, height):
    """A PNG whose header states a size, with no pixels behind it."""
    parts = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for name, data in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")):
        chunk = name + data
        parts += struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return parts


def test_labels_are_split_as_in_csv():
    assert Limits().labels(' red seven,"salt, pepper" ,, one') == [
        "red seven",
        "salt, pepper",
        "one",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "at least two"),
        ("one", "at least two"),
        ("a,b,c,d", "4 labels are too many"),
        ("a," + "b" * 11, "label 2 has 11 characters"),
        ("a,b\x1b[2J", "label 2 holds characters"),
        ("a,\u202eb", "label 2 holds characters"),
        ("a,a", "'a' is given twice"),
        ("x" * 10_000, "10000 characters"),
    ],
)
def test_labels_are_bounded(given, message):
    with pytest.raises(InputValueError, match=message):
        Limits(max_labels=3, max_characters=10).labels(given)


def test_pictures_are_bounded_before_they_are_decoded(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(6000, 5000))  # decoding would fail in another way
    with pytest.raises(InputValueError, match="6000 x 5000 pixels; 25 million is the most"):
        Limits().picture(path)
    path.write_bytes(b"x" * 1001)
    with pytest.raises(InputValueError, match=r"larger than 0\.001 MB"):
        Limits(max_bytes=1000).picture(path)
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="format is not known"):
        Limits().picture(path)
    with pytest.raises(InputError, match="choose it again"):
        Limits().picture(tmp_path / "missing.png")


def test_drawings_are_pngs_in_data_urls():
    file = io.BytesIO()
    Image.new("RGB", (4, 3), "teal").save(file, "png")
    start = "data:image/png;base64,"
    image = Limits().drawing(start + base64.b64encode(file.getvalue()).decode())
    assert image.size == (4, 3) and image.getpixel((0, 0)) == (0, 128, 128)
    for bad in ("", "http://example.com/x.png", "/etc/passwd", start + "?", start):
        with pytest.raises(InputError, match="draw it again"):
            Limits().drawing(bad)


def test_what_is_shown_is_escaped():
    assert text("<script>\x07'\"") == "&lt;script&gt;\\x07&#x27;&quot;"
    assert "<script>" not in error_html("<script>")
