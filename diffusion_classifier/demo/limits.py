"""What the demo accepts: bounds on what visitors send, checked before anything is computed.

The size of a picture's file is checked before it is opened, and the number of its pixels, which
its header states, before they are decoded.
"""

from __future__ import annotations

import base64
import binascii
import csv
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import InputFileError, InputValueError
from ..images import as_images
from ..images.files import opened
from ..utils.text import between_commas

DRAWN = "data:image/png;base64,"


@dataclass(frozen=True)
class Limits:
    """Bounds on what a visitor may send.

    Attributes
    ----------
    max_bytes : int, default=10,000,000
        Size of an uploaded file.
    max_pixels : int, default=25,000,000
        Width times height of a picture.
    max_labels : int, default=20
        Number of labels; at least 2 are needed.
    max_characters : int, default=80
        Length of one label.

    Examples
    --------
    >>> Limits().labels("red seven, blue three")
    ['red seven', 'blue three']
    >>> Limits(max_labels=2).labels("one, two, three")
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: 3 labels are too many; give 2 to 2.
    """

    max_bytes: int = 10_000_000
    max_pixels: int = 25_000_000
    max_labels: int = 20
    max_characters: int = 80

    def labels(self, text: str) -> list[str]:
        """Read labels between commas; those that hold commas are in double quotes, as in CSV.

        Raises
        ------
        InputValueError
            If there are too few or too many, one is too long or holds control characters, or two
            are the same.
        """
        if len(text) > self.max_labels * (self.max_characters + 4):
            raise InputValueError(f"the labels have {len(text)} characters; shorten them.")
        try:
            found = between_commas(text)
        except csv.Error as error:
            raise InputValueError(f"the labels cannot be read: {error}.") from error
        if len(found) < 2:
            raise InputValueError("give at least two labels, with a comma between them.")
        if len(found) > self.max_labels:
            raise InputValueError(f"{len(found)} labels are too many; give 2 to {self.max_labels}.")
        for number, label in enumerate(found, 1):
            if len(label) > self.max_characters:
                raise InputValueError(
                    f"label {number} has {len(label)} characters; {self.max_characters} is the "
                    "most."
                )
            if not label.isprintable():
                raise InputValueError(
                    f"label {number} holds characters that cannot be shown; type it again."
                )
        twice = next((label for label in found if found.count(label) > 1), None)
        if twice is not None:
            raise InputValueError(f"label {twice!r} is given twice; remove one.")
        return found

    def picture(self, path: str | os.PathLike[str]) -> Image.Image:
        """Read an uploaded picture, as RGB.

        Raises
        ------
        InputError
            If the file or the picture is too large, or it cannot be read.
        """
        try:
            with Path(path).open("rb") as file:
                content = file.read(self.max_bytes + 1)
        except OSError as error:
            raise InputFileError("the picture cannot be read; choose it again.") from error
        return self._read(content)

    def drawing(self, url: str) -> Image.Image:
        """Read the drawing pad's picture, a data URL of a PNG.

        Raises
        ------
        InputError
            As ``picture`` raises it.
        """
        content = b""
        if len(url) <= 2 * self.max_bytes and url.startswith(DRAWN):
            try:
                content = base64.b64decode(url[len(DRAWN) :], validate=True)
            except binascii.Error:
                content = b""
        if not content:
            raise InputValueError("the drawing cannot be read; draw it again.")
        return self._read(content)

    def _read(self, content: bytes) -> Image.Image:
        """Read the bytes of a picture."""
        if len(content) > self.max_bytes:
            raise InputValueError(
                f"the picture's file is larger than {self.max_bytes / 1e6:g} MB; make it smaller."
            )
        with opened(content, 0) as image:
            if image.width * image.height > self.max_pixels:
                raise InputValueError(
                    f"the picture has {image.width} x {image.height} pixels; "
                    f"{self.max_pixels / 1e6:g} million is the most."
                )
            image.load()
            return as_images([image])[0]
