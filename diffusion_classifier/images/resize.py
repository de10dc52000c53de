"""Resizing of RGB images to a model's input size, and conversion to a batch tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputValueError
from ..utils.validation import check_option, check_positive_integer

ResizeMode = Literal["crop", "pad", "squash"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)

# Most pixels that a step of resizing makes, in pictures of the source's or the result's size.
_MOST_WORK = 16
_REACH = 3  # pixels beyond a box that bicubic resampling reads when it enlarges


def read_size(size: Any) -> tuple[int, int]:
    """Return (height, width) from one side length or a pair.

    Raises
    ------
    InputValueError
        If ``size`` is not a positive integer or a pair of them.

    Examples
    --------
    >>> read_size(512), read_size((512, 768))
    ((512, 512), (512, 768))
    """
    sides = [size] * 2 if np.isscalar(size) else list(size)
    if len(sides) != 2:
        raise InputValueError(f"image_size={size!r} must be an int or (height, width).")
    height, width = (check_positive_integer("image_size", side) for side in sides)
    return height, width


def resize_image(image: Image.Image, size: tuple[int, int] | None, mode: str) -> Image.Image:
    """Resize an RGB image with bicubic resampling.

    Parameters
    ----------
    image : PIL.Image.Image
        In RGB.
    size : tuple of (int, int) or None
        Height and width in pixels; None leaves the image as it is.
    mode : {"crop", "pad", "squash"}
        ``"crop"`` scales the short side to fit and crops the centre of the long one, exactly as
        diffusers' ``VaeImageProcessor`` does. ``"pad"`` fits the whole image and adds black bars.
        ``"squash"`` changes the aspect ratio. Memory is bounded by the sizes of the image and the
        result, whatever their aspect ratios.

    Returns
    -------
    PIL.Image.Image
        The same object if no resizing is needed.

    Raises
    ------
    InputValueError
        If ``mode`` is not one of these.

    Examples
    --------
    >>> resize_image(Image.new("RGB", (640, 480)), (256, 256), "crop").size
    (256, 256)
    """
    check_option("resize", mode, RESIZE_MODES)
    if size is None or image.size == (size[1], size[0]):
        return image
    height, width = size
    most = _MOST_WORK * max(image.width * image.height, width * height)
    if mode == "squash":
        if width * image.height > most:  # Pillow resizes rows first
            image = image.resize((image.width, height), Image.Resampling.BICUBIC)
        return image.resize((width, height), Image.Resampling.BICUBIC)
    # ImageOps.fit crops at fractions of a pixel and differs by up to 70 grey levels.
    is_wider = image.width * height >= image.height * width
    if is_wider == (mode == "crop"):
        inner = max(1, image.width * height // image.height), height
    else:
        inner = width, max(1, image.height * width // image.width)
    corner = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    if inner[0] * inner[1] > most:
        return _resize_part(image, inner, corner, (width, height))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
    return canvas


def _resize_part(
    image: Image.Image, inner: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
) -> Image.Image:
    """Resize only what a canvas shows of an image that, resized, would be much larger.

    Parameters
    ----------
    image : PIL.Image.Image
    inner : tuple of (int, int)
        Width and height of the whole image, resized.
    corner : tuple of (int, int)
        Its place on the canvas; not positive.
    size : tuple of (int, int)
        Width and height of the canvas.

    Returns
    -------
    PIL.Image.Image
    """
    scales = [whole / made for whole, made in zip(image.size, inner, strict=True)]
    start = [-first * scale for first, scale in zip(corner, scales, strict=True)]
    stop = [(n - first) * scale for n, first, scale in zip(size, corner, scales, strict=True)]
    # Pillow keeps boxes in single precision, which is too coarse for a very long image.
    first = [max(0, math.floor(place) - _REACH) for place in start]
    last = [min(n, math.ceil(place) + _REACH) for n, place in zip(image.size, stop, strict=True)]
    part = image.crop((first[0], first[1], last[0], last[1]))
    box = (
        start[0] - first[0],
        start[1] - first[1],
        min(stop[0] - first[0], part.width),
        min(stop[1] - first[1], part.height),
    )
    return part.resize(size, Image.Resampling.BICUBIC, box)


def to_tensor_batch(images: Sequence[Image.Image]) -> Tensor:
    """Stack RGB images of equal size into a tensor with black at -1 and white at 1.

    Parameters
    ----------
    images : sequence of PIL.Image.Image, of length B
        In RGB.

    Returns
    -------
    Tensor of shape (B, 3, H, W), dtype float32
        In [-1, 1].

    Raises
    ------
    InputValueError
        If sizes differ.

    Examples
    --------
    >>> to_tensor_batch([Image.new("RGB", (2, 1), (0, 255, 0))])[0, :, 0, 0].tolist()
    [-1.0, 1.0, -1.0]
    """
    sizes = sorted({(image.height, image.width) for image in images})
    if len(sizes) > 1:
        raise InputValueError(
            f"images have different sizes, (height, width) {', '.join(map(str, sizes))}; "
            "set image_size to resize all of them to one size."
        )
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 127.5 - 1
