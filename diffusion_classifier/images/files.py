"""Image files: which paths are read, their headers, and folders of images.

Only regular files are opened. A named pipe or device could block for ever, or never end.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..errors import InputError, InputFileError, InputValueError, MissingFileError
from ..utils.display import short_repr
from ..utils.files import kind_of

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FilePath = str | os.PathLike[Any]

LONGEST_SIDE = 10**6  # pixels; resampling takes 32 bytes for each pixel of a side

_MOST_NAMED = 5  # bad images that one error names
_CHECK_THREADS = 8
_FILES_PER_TASK = 64


def check_path(path: FilePath, index: int) -> None:
    """Raise unless a path leads to a regular file; ``index`` is the image's place in X."""
    name = _name(path, index)
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise InputFileError(f"{name} cannot be read; you have no permission.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise MissingFileError(f"{name} does not exist; check the path.") from error
    if stat.S_ISDIR(mode):
        raise InputValueError(
            f"{name} is a folder; list the images of class folders with "
            "diffusion_classifier.datasets.load_image_folder(path).paths."
        )
    if not stat.S_ISREG(mode):
        raise InputFileError(
            f"{name} is {kind_of(mode)}, not a regular file; save the image to a file, or pass a "
            "PIL image."
        )


@contextmanager
def opened(file: FilePath | bytes, index: int) -> Iterator[Image.Image]:
    """Open an image file, or the bytes of one; errors, also inside the block, name the image.

    Pillow reads the header only, until the pixels are needed. Its limit on the number of pixels
    is kept.
    """
    source: Any
    if isinstance(file, bytes):
        name, source = f"image {index}", io.BytesIO(file)
    else:
        check_path(file, index)
        name, source = _name(file, index), file
    with naming_errors(name), Image.open(source) as image:
        if image.format == "EPS":
            raise InputValueError(f"{name} is PostScript, a program that is not run; convert it.")
        check_size(image.size, name)
        yield image


def check_size(size: tuple[int, ...], name: str) -> None:
    """Raise if an image, of any order of axes, is empty or too long to be resampled."""
    if 0 in size:
        raise InputValueError(f"{name} has zero size: {size}; remove it.")
    if max(size, default=1) > LONGEST_SIDE:
        raise InputValueError(
            f"{name} has size {size}; the longest side allowed is {LONGEST_SIDE} pixels."
        )


@contextmanager
def naming_errors(name: str) -> Iterator[None]:
    """Turn any error of Pillow's decoders, which are of many types, into one that names the image.

    Raises
    ------
    InputValueError
        If the block raises any Exception.
    """
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputValueError(
            f"{name} has too many pixels ({error}) Make it smaller or, if you trust the file, "
            "raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "its format is not known" if unknown else short_repr(error)
        raise InputValueError(
            f"{name} cannot be read as an image ({reason}); fix or remove it."
        ) from error


def check_headers(files: Sequence[tuple[FilePath, int]]) -> None:
    """Check in a few threads that all files have an image's header and size.

    Pixels are not decoded, so a file that ends early or is damaged inside passes.

    Parameters
    ----------
    files : sequence of (path, int)
        Paths, and the indices that name them in messages.

    Raises
    ------
    InputError
        If files cannot be read; the message names up to five of them.
    """

    def check(path: FilePath, index: int) -> None:
        with opened(path, index):
            pass

    def check_some(first: int) -> list[InputError]:
        return problems(check, files[first : first + _FILES_PER_TASK])

    pool = ThreadPoolExecutor(_CHECK_THREADS, thread_name_prefix="headers")
    try:
        found = pool.map(check_some, range(0, len(files), _FILES_PER_TASK))
        raise_problems([error for some in found for error in some])
    finally:
        pool.shutdown(cancel_futures=True)


def problems(
    check: Callable[[Any, int], None], items: Iterable[tuple[Any, int]]
) -> list[InputError]:
    """Return the errors of a check of (item, index) pairs."""
    found = []
    for item, index in items:
        try:
            check(item, index)
        except InputError as error:
            found.append(error)
    return found


def raise_problems(found: Sequence[InputError]) -> None:
    """Raise the only error, or one that quotes the first five; return if there is none."""
    if len(found) == 1:
        raise found[0]
    if found:
        quoted = " ".join(map(str, found[:_MOST_NAMED]))
        rest = len(found) - _MOST_NAMED
        more = f" And {rest} more." if rest > 0 else ""
        raise type(found[0])(f"{len(found)} images cannot be read: {quoted}{more}")


def list_images(folder: FilePath) -> list[str]:
    """List the image files of a folder, sorted by name.

    Hidden files and files without an image suffix are left out.

    Parameters
    ----------
    folder : str or path-like
        A folder without sub-folders, apart from hidden ones.

    Returns
    -------
    list of str

    Raises
    ------
    InputValueError
        If it has sub-folders or holds no images.
    """
    root = Path(os.fsdecode(folder))
    found = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    nested = [path.name for path in found if path.is_dir()]
    if nested:
        raise InputValueError(
            f"folder {short_repr(str(root))} has sub-folders, {short_repr(nested)}; "
            "if they are classes, pass "
            "diffusion_classifier.datasets.load_image_folder(path).paths, else a list of paths."
        )
    images = [str(path) for path in found if is_image_name(path) and path.is_file()]
    if not images:
        raise InputValueError(
            f"folder {short_repr(str(root))} holds no images ({', '.join(IMAGE_SUFFIXES)})."
        )
    return images


def is_image_name(path: Path) -> bool:
    """Whether a file's suffix is that of a known image format."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _name(path: FilePath, index: int) -> str:
    return f"image {index}: {short_repr(os.fsdecode(path))}"
