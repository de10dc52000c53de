"""Conversion of one image (PIL image, file, array or tensor) to 8-bit RGB.

The EXIF orientation is applied. 16-bit grey values are divided by 257, so that 65535 becomes 255;
floats in [0, 1] are multiplied by 255 and rounded. ``index`` is the image's position in the
user's data, for error messages.

32-bit integers (Pillow's mode "I") do not say which value is white. Their largest value decides:

    2 ... 255, or all 0    8-bit values, 255 is white
    4096 ... 65535         16-bit values, 65535 is white
    others                 an error: a mask, 10 or 12 bits, or values beyond 16 bits

Files in PPM format have 16-bit values whatever their largest, because Pillow scales them so. In
TIFF files of 12 bits 4095 is white.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import InputTypeError, InputValueError
from .files import check_path, check_size, naming_errors, opened

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_BITS_PER_SAMPLE = 258  # a tag of TIFF files
ROUNDING = 1e-5  # tolerance for floats that rounding errors moved outside [0, 1]


def to_rgb(item: Any, index: int) -> Image.Image:
    """Convert an image of any supported form to a new PIL image in RGB."""
    check_picture(item, index)
    if isinstance(item, np.ndarray | Tensor):
        return Image.fromarray(_to_uint8(channels_last(item, index))).convert("RGB")
    image = _decode(item, index)
    return image if image.mode == "RGB" else to_rgb(_deep_grey(image, index), index)


def check_picture(item: Any, index: int) -> None:
    """Raise if an element is not an image; files are checked to exist but not decoded."""
    if isinstance(item, str | os.PathLike):
        check_path(item, index)
    elif isinstance(item, Image.Image):
        check_size(item.size, f"image {index}")
    elif isinstance(item, np.ndarray | Tensor):
        array = channels_last(item, index)
        if array.dtype.kind == "f":
            check_floats(array, index)
    elif item is None:
        raise InputTypeError(f"image {index} is None; remove it and its label.")
    else:
        hint = ""
        if isinstance(item, Mapping):
            hint = ' (a data set row: pass the image column, dataset["image"])'
        if isinstance(item, Mapping) and "bytes" in item:
            hint = ' (not decoded: pass dataset.cast_column("image", datasets.Image())["image"])'
        raise InputTypeError(
            f"image {index} is of type {type(item).__name__}{hint}; give a PIL image, path, array "
            "or tensor."
        )


def unmasked(values: Any, name: str) -> Any:
    """Return the data of a masked array without masked values, and anything else unchanged.

    Raises
    ------
    InputValueError
        If values are masked: nothing says what they should be.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if n_masked := int(np.ma.count_masked(values)):
        raise InputValueError(
            f"{name} is a masked array with {n_masked} masked values; replace them, for example "
            "by X.filled(0), or remove the images that have them."
        )
    return np.ma.getdata(values)


def bounds(values: NDArray | Tensor) -> tuple[float, float]:
    """Return the minimum and maximum; both are NaN if any value is."""
    return float(values.min()), float(values.max())


def is_unit_range(low: float, high: float) -> bool:
    """Whether these bounds lie in [0, 1], up to rounding errors."""
    return low >= -ROUNDING and high <= 1 + ROUNDING


def check_floats(values: NDArray | Tensor, index: int) -> None:
    """Raise if an image holds NaN, infinity or values outside [0, 1]."""
    low, high = bounds(values)
    if not np.isfinite([low, high]).all():
        raise InputValueError(f"image {index} holds NaN or infinite values; remove or fix it.")
    if not is_unit_range(low, high):
        way = "divide by 255" if low >= 0 else "rescale, for [-1, 1] by (image + 1) / 2"
        raise InputValueError(
            f"image {index} has floats in [{low:.6g}, {high:.6g}], outside [0, 1]; {way}."
        )


def to_array(values: Tensor) -> NDArray:
    """Convert a tensor on any device to an array; floats become float32."""
    values = values.detach().cpu()
    # NumPy has no bfloat16.
    return (values.float() if values.is_floating_point() else values).numpy()


def channels_last(item: NDArray | Tensor, index: int) -> NDArray:
    """Return an image array or tensor as an array [H, W] or [H, W, 3 or 4], dtype checked."""
    item = unmasked(item, f"image {index}")
    shape = tuple(item.shape)
    check_size(shape, f"image {index}")
    axes = (-1, 0)
    if isinstance(item, Tensor):
        axes = (0, -1)
        item = to_array(item)
    if item.dtype.kind not in "bf" and item.dtype.str[1:] not in ("u1", "u2"):
        raise InputValueError(
            f"image {index} has dtype {item.dtype}; give uint8 in 0 ... 255, uint16 in "
            "0 ... 65535, floats in [0, 1], or bool."
        )
    if len(shape) == 2:
        return item
    for axis in axes:
        if len(shape) == 3 and shape[axis] in CHANNELS:
            item = np.moveaxis(item, axis, -1)
            return item[..., 0] if item.shape[-1] == 1 else item
    raise InputValueError(
        f"image {index} has shape {shape}; an image is [H, W, C], [C, H, W] or [H, W] with "
        "C = 1, 3 or 4."
    )


def _decode(item: Any, index: int) -> Image.Image:
    """Return a PIL image, or the image in a file, upright: in RGB or grey with more than 8 bits."""
    if isinstance(item, Image.Image):
        with naming_errors(f"image {index}"):
            return _upright(item)
    with opened(item, index) as image:
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """Decode an image and apply its EXIF orientation."""
    upright = ImageOps.exif_transpose(image)
    if getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,):  # left in 0 ... 4095
        values = np.asarray(upright) * (65535 / 4095)
        return Image.fromarray(np.rint(values).astype(np.uint16))
    if upright.mode == "F" or upright.mode.startswith("I"):
        upright.format = image.format  # Pillow forgets it
        return upright
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def _deep_grey(image: Image.Image, index: int) -> NDArray:
    """Return the values of a grey image with more than 8 bits, as uint8, uint16 or float."""
    values = np.asarray(image)
    if image.mode != "I":
        return values
    low, high = int(values.min()), int(values.max())
    if low >= 0 and (4096 <= high <= 65535 or (high <= 65535 and image.format == "PPM")):
        return values.astype(np.uint16)
    if low >= 0 and high <= 255 and high != 1:
        return values.astype(np.uint8)
    raise InputValueError(
        f"image {index} has 32-bit values in [{low}, {high}], which do not tell which value is "
        "white: those up to 255, and up to 4096 ... 65535, do. Convert them to 8 bits: "
        'np.clip(np.asarray(image) * 255.0 / white, 0, 255).astype("uint8"), where white is the '
        "value of white."
    )


def _to_uint8(array: NDArray) -> NDArray[np.uint8]:
    """Scale values to 0 ... 255, via float32 so that all float dtypes round alike."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "u":
        array = array / 257
    elif array.dtype.kind == "f":
        array = array.astype(np.float32).clip(0, 1) * 255
    else:
        array = array * 255
    return np.rint(array).astype(np.uint8)
