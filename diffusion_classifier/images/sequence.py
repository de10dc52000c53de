"""Pictures in any form, as one lazy sequence of 8-bit RGB images.

Every picture is first made the same thing, a PIL RGB image, and only then resized, by one method
(:mod:`~diffusion_classifier.images.picture` and :mod:`~diffusion_classifier.images.resize`). The
same picture therefore gives the same numbers whether it came as a file, an array or a tensor;
libraries that resize each form in its own way differ visibly between them.
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
from ..utils.locks import fork_safe_lock
from .picture import (
    CHANNELS,
    bounds,
    channels_last,
    check_floats,
    check_picture,
    is_unit_range,
    to_rgb,
)

WAY_OUT = "give a list of images, paths or arrays"

# An opened image file and many data sets cannot be read by two threads at once.
_one_reader = fork_safe_lock()


class ImageSequence(Sequence[Image.Image]):
    """A lazy sequence of RGB images; made by :func:`read_images` and :func:`as_images`.

    An integer index decodes one image. A slice, a list or array of integers, or a boolean mask
    gives a sub-sequence without decoding any, so that cross-validation stays lazy. Errors name
    an image by its place in the sequence that was read first.

    Parameters
    ----------
    source : sequence
        Images, paths, arrays or tensors, indexed by an integer.
    order : ndarray of int, optional
        Places in ``source``, in order. By default all of them.

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
        """``(n_images,)``: scikit-learn takes what has a shape by arrays of indices at once."""
        return (len(self),)

    def __getitem__(self, index: Any) -> Any:
        picked = self._order[index]
        if picked.ndim:
            return ImageSequence(self._source, picked)
        place = int(picked)
        with _one_reader:
            item = self._item(place)
            if not isinstance(item, str | os.PathLike):
                return to_rgb(item, place)
        return to_rgb(item, place)  # several files can be decoded at once

    def _item(self, place: int) -> Any:
        try:
            return self._source[place]
        except Exception as error:  # a data set that decodes raises errors of many types
            raise InputValueError(
                f"image {place} cannot be read ({error!r}); mend or remove it."
            ) from error

    def __repr__(self) -> str:
        return f"ImageSequence(n_images={len(self)})"


def read_images(X: Any) -> ImageSequence:
    """Any collection of images as a lazy sequence of RGB images.

    Paths are checked to exist and values in memory to be pictures before anything is computed;
    files are decoded when their image is asked for.

    Parameters
    ----------
    X : sequence of length N
        One of

        - a list, tuple or object array of PIL images, paths, arrays and tensors, also mixed;
        - a uint8, uint16 or bool array or tensor, or a float one in [0, 1], of shape [N, H, W, C],
          [N, C, H, W] or [N, H, W] with C = 1, 3 or 4. Where both axes could be the channels,
          arrays have them last and tensors first;
        - a string array of paths, a Series, or a DataFrame with one column;
        - any other sequence of images, such as the image column of a Hugging Face data set,
          read lazily;
        - an ImageSequence, returned as it is.

    Returns
    -------
    ImageSequence
        Of length N.

    Raises
    ------
    TypeError
        If X is one image or path, a torch Dataset or no sequence, or an element is no image.
    ValueError
        If there are no images, or one has zero size, NaN, floats outside [0, 1] or a shape or
        dtype that is none of the above. Reading an image from a file that is none raises it too.
    FileNotFoundError
        If a path does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> read_images(np.ones((2, 3, 4, 4)))[1].getpixel((0, 0))
    (255, 255, 255)
    """
    if hasattr(X, "column_names"):  # of Hugging Face
        raise InputTypeError(
            f"X is a whole data set, with columns {X.column_names}; pass the one with the images, "
            'such as dataset["image"].'
        )
    if isinstance(X, Dataset):
        raise InputTypeError(
            f"X is a torch Dataset ({type(X).__name__}), whose items hold labels that "
            "cross-validation would leak into X; pass as_images(dataset) as X and the labels as y."
        )
    images = X if isinstance(X, ImageSequence) else ImageSequence(_as_source(X))
    if not len(images):
        raise InputValueError(f"X has no images; {WAY_OUT} with at least one.")
    return images


def as_images(dataset: Any) -> ImageSequence:
    """The images of a torch Dataset, without its labels, as a lazy sequence.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset or sequence
        Its items are images, or tuples or lists whose first element is the image. It is read one
        item at a time, when the image is asked for. The image column of a Hugging Face data set
        is taken as it is wherever X is; as a lazy view, cross-validation splits it without
        decoding whole folds.

    Returns
    -------
    ImageSequence
        Of the data set's length.

    Raises
    ------
    TypeError
        If the data set has no length.
    ValueError
        If it is empty.

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
    """The first element of each item of a data set."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        return item[0] if isinstance(item, list | tuple) else item


def _as_source(X: Any) -> Any:
    """What X is indexed as, its values checked as far as they are in memory."""
    if isinstance(X, str | os.PathLike | Image.Image):
        raise InputTypeError(f"X is a single {type(X).__name__}; wrap it in a list: [image].")
    if hasattr(X, "iloc"):  # a pandas Series or DataFrame
        X = _only_column(X)
    elif isinstance(X, np.ndarray) and X.dtype.kind in "OUT":  # objects or strings
        if X.ndim != 1 and X.shape[1:] != (1,):
            raise InputValueError(_shape_message(X))
        X = X.reshape(len(X)).tolist()
    if hasattr(X, "toarray"):  # of SciPy
        raise InputTypeError(f"X is sparse ({type(X).__name__}); pass X.toarray().")
    if isinstance(X, list | tuple):
        for index, item in enumerate(X):
            check_picture(item, index)
        return list(X)
    if isinstance(X, Tensor):
        X = X.detach().cpu()
    if isinstance(X, np.ndarray | Tensor):
        _check_stack(X)
    elif isinstance(X, Mapping) or not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        raise InputTypeError(f"X is of type {type(X).__name__}; {WAY_OUT}.")
    return X


def _only_column(table: Any) -> list[Any]:
    if table.ndim == 1:
        return list(table)
    if table.shape[1] != 1:
        names = ", ".join(map(repr, table.columns))
        raise InputValueError(
            f"X has {table.shape[1]} columns ({names}); pass the one with the images."
        )
    return list(table.iloc[:, 0])


def _shape_message(X: Any) -> str:
    return (
        f"X has shape {tuple(X.shape)}; give an array of shape [N, H, W, C], [N, C, H, W] or "
        "[N, H, W] with C = 1, 3 or 4, or a list of images or paths."
    )


def _check_stack(X: NDArray | Tensor) -> None:
    """Refuse an array that is no stack of pictures, or holds values that are none."""
    if X.ndim and not len(X):
        return
    if X.ndim not in (3, 4):
        raise InputValueError(_shape_message(X))
    is_chw = isinstance(X, Tensor) and X.shape[0] in (3, 4)
    if X.ndim == 3 and (X.shape[-1] in CHANNELS or is_chw):
        raise InputValueError(
            f"X has shape {tuple(X.shape)}, which is one picture; wrap it in a list: [image]. "
            "Grey pictures can be given as [N, 1, H, W]."
        )
    array = channels_last(X[0], 0)
    if array.dtype.kind == "f" and not is_unit_range(*bounds(X)):
        for index, item in enumerate(X):
            check_floats(item, index)
