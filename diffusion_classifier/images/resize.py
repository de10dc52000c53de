"""RGB images at the size a model takes, and as the tensor that it reads."""

from __future__ import annotations

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


def read_size(size: Any) -> tuple[int, int]:
    """Height and width from a side or a pair; a ValueError if they are not positive integers.

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
    """An RGB image at the size a model takes, by bicubic resampling.

    Parameters
    ----------
    image : PIL.Image.Image
        In RGB.
    size : tuple of (int, int) or None
        Height and width in pixels; None leaves the image as it is.
    mode : {"crop", "pad", "squash"}
        ``"crop"`` fits the short side and cuts the ends of the long one off, pixel for pixel as
        diffusers' ``VaeImageProcessor`` does; ``"pad"`` shows the whole image between black bars;
        ``"squash"`` distorts it.

    Returns
    -------
    PIL.Image.Image
        The image itself if it has that size already.

    Raises
    ------
    ValueError
        If ``mode`` is not known.

    Examples
    --------
    >>> resize_image(Image.new("RGB", (640, 480)), (256, 256), "crop").size
    (256, 256)
    """
    check_option("resize", mode, RESIZE_MODES)
    if size is None or image.size == (size[1], size[0]):
        return image
    height, width = size
    if mode == "squash":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    # Not ImageOps.fit: it crops at fractions of a pixel and strays by up to 70 grey levels.
    is_wider = image.width * height >= image.height * width
    if is_wider == (mode == "crop"):
        inner = max(1, image.width * height // image.height), height
    else:
        inner = width, max(1, image.height * width // image.width)
    canvas = Image.new("RGB", (width, height))
    corner = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
    return canvas


def to_tensor_batch(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size as a tensor, black -1 and white 1.

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
    ValueError
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
            "give image_size so that they are resized to one."
        )
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 127.5 - 1
