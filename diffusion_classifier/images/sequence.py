"""Lazy sequences of 8-bit RGB images, read from collections in any form.

Every image is first converted to a PIL image in RGB
(:mod:`~diffusion_classifier.images.picture`) and then resized by one method
(:mod:`~diffusion_classifier.images.resize`). An image therefore gives the same pixel values
whether it is passed as a file, an array or a tensor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputTypeError, InputValueError
from ..utils.display import short_repr
from ..utils.locks import fork_safe_lock
from .files import check_headers, list_images, problems, raise_problems
from .picture import (
    CHANNELS,
    bounds,
    channels_last,
    check_floats,
    check_picture,
    is_unit_range,
    to_rgb,
    unmasked,
)

WAY_OUT = "give a list of images, paths or arrays"

# Open image files and many data sets are not thread-safe.
ONE_READER = fork_safe_lock()


class ImageSequence(Sequence[Image.Image]):
    """Lazy sequence of RGB images, made by :func:`read_images` and :func:`as_images`.

    Indexing with an integer decodes one image. Indexing with a slice, integers or a boolean mask
    returns a sub-sequence without decoding anything, so cross-validation stays lazy. Error
    messages give an image's index in ``source``, also when a sub-sequence is read.

    Parameters
    ----------
    source : sequence
        Images, paths, arrays or tensors, indexed by an integer.
    order : ndarray of int, optional
        Indices into ``source``. By default all of them, in order.

    Examples
    --------
    >>> import numpy as np
    >>> images = read_images(np.zeros((5, 8, 6, 3), dtype=np.uint8))
    >>> images[0].size, images[1:4]
    ((6, 8), ImageSequence(n_images=3))
    """

    def __init__(self, source: Any, order: NDArray[np.intp] | None = None) -> None:
        self._source = source
        self._order = np.arange(len(source)) if order is None else order

    def __len__(self) -> int:
        return len(self._order)

    @property
    def shape(self) -> tuple[int]:
        """Shape ``(n_images,)``; lets scikit-learn index with a whole array at once."""
        return (len(self),)

    def __getitem__(self, index: Any) -> Any:
        picked = self._order[index]
        if picked.ndim:
            return ImageSequence(self._source, picked)
        place = int(picked)
        with ONE_READER:
            item = self._item(place)
            if not isinstance(item, str | os.PathLike):
                return to_rgb(item, place)
        return to_rgb(item, place)  # outside the lock: files are decoded in parallel

    def _item(self, place: int) -> Any:
        try:
            return self._source[place]
        except Exception as error:  # data sets raise many types of error while decoding
            raise InputValueError(
                f"image {place} cannot be read ({short_repr(error)}); fix or remove it."
            ) from error

    def check_files(self) -> None:
        """Check the headers of all image files in a list, without decoding them.

        Images in memory and lazy columns are left alone.

        Raises
        ------
        InputValueError, InputFileError
            If files cannot be read as images; the message names up to five of them.
        """
        if isinstance(self._source, list):
            places = dict.fromkeys(self._order.tolist())  # a sample may repeat images
            items = [(self._source[place], place) for place in places]
            check_headers([pair for pair in items if isinstance(pair[0], str | os.PathLike)])

    def __repr__(self) -> str:
        return f"ImageSequence(n_images={len(self)})"


def read_images(X: Any, *, check: bool = True) -> ImageSequence:
    """Read any collection of images as a lazy sequence of RGB images.

    Images in memory and the existence of files are checked at once. Files are decoded only when
    their image is requested.

    Parameters
    ----------
    X : sequence of length N, or a folder
        One of

        - a folder, as a str or path-like: its image files, sorted by name
          (:func:`~diffusion_classifier.datasets.load_image_folder` reads one sub-folder per
          class);
        - a list, tuple or object array of PIL images, paths, arrays and tensors, mixed or not;
        - a uint8, uint16 or bool array or tensor, or a float one in [0, 1], of shape [N, H, W, C],
          [N, C, H, W] or [N, H, W] with C = 1, 3 or 4. If the shape is ambiguous, arrays are read
          as channels-last and tensors as channels-first;
        - a string array of paths, a Series, or a DataFrame with one column;
        - any other sequence of images, such as the image column of a Hugging Face data set,
          read lazily;
        - an ImageSequence, returned as it is.
    check : bool, default=True
        Whether a bad image raises at once. If False, it raises when it is requested.

    Returns
    -------
    ImageSequence
        Of length N.

    Raises
    ------
    InputTypeError
        If X is a single image or path, a torch Dataset or not a sequence, or if an element is not
        an image.
    InputValueError
        If there are no images, or an image has zero size, NaN, floats outside [0, 1], masked
        values, or an unsupported shape or dtype, or if a path in a list is a folder. A file that is
        not an image raises it when it is decoded.
    InputFileError
        If a path does not exist or leads to a device, a named pipe or a socket.

    Notes
    -----
    32-bit grey integers (Pillow's mode "I") are read as 8-bit values if their maximum is at most
    255, and as 16-bit values if it is 4096 or more. Other maxima do not tell which value is white
    and raise InputValueError, as does a maximum of 1.

    Examples
    --------
    >>> import numpy as np
    >>> read_images(np.ones((2, 3, 4, 4)))[1].getpixel((0, 0))
    (255, 255, 255)
    """
    if hasattr(X, "column_names"):  # a Hugging Face data set
        raise InputTypeError(
            f"X is a whole data set, with columns {X.column_names}; pass the image column only, "
            'such as dataset["image"].'
        )
    if isinstance(X, Dataset):
        raise InputTypeError(
            f"X is a torch Dataset ({type(X).__name__}), whose items may hold labels; pass "
            "as_images(dataset) as X and the labels as y."
        )
    images = X if isinstance(X, ImageSequence) else ImageSequence(_as_source(X, check))
    if not len(images):
        raise InputValueError(f"X has no images; {WAY_OUT} with at least one.")
    return images


def as_images(dataset: Any) -> ImageSequence:
    """View the images of a torch Dataset, without its labels, as a lazy sequence.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset or sequence
        Its items are images, or tuples or lists whose first element is the image. Each item is
        read when its image is requested. The image column of a Hugging Face data set can be
        passed as X directly; wrapped in ``as_images``, cross-validation splits it without
        decoding whole folds.

    Returns
    -------
    ImageSequence
        Of the data set's length.

    Raises
    ------
    InputTypeError
        If the data set has no length.
    InputValueError
        If the data set is empty.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> as_images(TensorDataset(torch.zeros(4, 3, 8, 8), torch.arange(4)))
    ImageSequence(n_images=4)
    """
    if not hasattr(dataset, "__len__"):
        raise InputTypeError(f"{type(dataset).__name__} has no length; {WAY_OUT} instead.")
    return read_images(ImageSequence(_FirstElements(dataset)))


class _FirstElements:
    """View of the first element of each item of a data set."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        return item[0] if isinstance(item, list | tuple) else item


def _as_source(X: Any, check: bool) -> Any:
    """Return X as an indexable source of images; ``check`` values in memory."""
    if isinstance(X, str | os.PathLike):
        if os.path.isdir(X):
            return list_images(X)
        raise InputTypeError(
            f"X is a single path, {short_repr(os.fspath(X))}, and no folder; for one image pass a "
            "list: [path]."
        )
    if isinstance(X, Image.Image):
        raise InputTypeError(f"X is a single {type(X).__name__}; wrap it in a list: [image].")
    X = unmasked(X, "X")
    if hasattr(X, "iloc"):  # a pandas Series or DataFrame
        X = _only_column(X)
    elif isinstance(X, np.ndarray) and X.dtype.kind in "OUT":  # objects or strings
        if X.ndim != 1 and X.shape[1:] != (1,):
            raise InputValueError(_shape_message(X))
        X = X.reshape(len(X)).tolist()
    if hasattr(X, "toarray"):  # a SciPy sparse matrix
        raise InputTypeError(f"X is sparse ({type(X).__name__}); pass X.toarray().")
    if isinstance(X, list | tuple):
        if check:
            raise_problems(problems(check_picture, zip(X, range(len(X)), strict=True)))
        return list(X)
    if isinstance(X, Tensor):
        X = X.detach().cpu()
    if isinstance(X, np.ndarray | Tensor):
        _check_stack(X, check)
    elif isinstance(X, Mapping) or not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        raise InputTypeError(f"X is of type {type(X).__name__}; {WAY_OUT}.")
    return X


def _only_column(table: Any) -> list[Any]:
    if table.ndim == 1:
        return list(table)
    if table.shape[1] != 1:
        names = ", ".join(map(repr, table.columns))
        raise InputValueError(
            f"X has {table.shape[1]} columns ({names}); pass the image column only."
        )
    return list(table.iloc[:, 0])


def _shape_message(X: Any) -> str:
    return (
        f"X has shape {tuple(X.shape)}; give an array of shape [N, H, W, C], [N, C, H, W] or "
        "[N, H, W] with C = 1, 3 or 4, or a list of images or paths."
    )


def _check_stack(X: NDArray | Tensor, check: bool) -> None:
    """Raise if an array is not a stack of images or, with ``check``, holds invalid values."""
    if X.ndim and not len(X):
        return
    if X.ndim not in (3, 4):
        raise InputValueError(_shape_message(X))
    is_chw = isinstance(X, Tensor) and X.shape[0] in (3, 4)
    if X.ndim == 3 and (X.shape[-1] in CHANNELS or is_chw):
        raise InputValueError(
            f"X has shape {tuple(X.shape)}, which is one image; wrap it in a list: [image]. "
            "Give grey images as [N, 1, H, W]."
        )
    array = channels_last(X[0], 0)
    if check and array.dtype.kind == "f" and not is_unit_range(*bounds(X)):
        raise_problems(problems(check_floats, zip(X, range(len(X)), strict=True)))
