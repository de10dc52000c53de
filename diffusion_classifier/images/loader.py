"""Batches of images, decoded by a few threads ahead of the network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

from PIL import Image
from torch import Tensor

from ..errors import InputError
from .resize import resize_image, to_tensor_batch
from .sequence import ImageSequence

DECODE_THREADS = 4
_UNKNOWN_SIZE = (64, 64)  # pixels, if no image can be read
DECODE_AHEAD = 32  # images, at the model's input size: 25 MB at 512 x 512


class PictureLoader:
    """Loader of image batches that decodes the following images in the background.

    Use it as a context manager. Each call also starts to read and resize the next ``ahead``
    images. An image that cannot be read raises when it is requested, not while it is decoded
    ahead. The threads stop when the ``with`` block ends.

    Parameters
    ----------
    images : ImageSequence
    size : tuple of (int, int) or None
        Height and width in pixels. None keeps the images' own size, which must be equal.
    mode : {"crop", "pad", "squash"}
        See :func:`~diffusion_classifier.images.resize_image`.
    ahead : int, default=32
        Maximum number of images to decode ahead.
    skip : bool, default=False
        Whether an image that cannot be read is replaced by another and noted in ``skipped``,
        instead of raising.

    Attributes
    ----------
    skipped : dict of int to str
        Images requested so far that cannot be read, and the reasons.

    Examples
    --------
    >>> from diffusion_classifier.images import read_images
    >>> images = read_images([Image.new("RGB", (40, 30)), Image.new("L", (8, 9))])
    >>> with PictureLoader(images, (16, 16), "crop") as load:
    ...     load([0, 1, 1]).shape
    torch.Size([3, 3, 16, 16])
    """

    def __init__(
        self,
        images: ImageSequence,
        size: tuple[int, int] | None,
        mode: str,
        *,
        ahead: int = DECODE_AHEAD,
        skip: bool = False,
    ) -> None:
        self._images = images
        self._size = size
        self._mode = mode
        self._ahead = ahead
        self._skip = skip
        self._pictures: dict[int, Future[Image.Image]] = {}
        self._stand_in: Image.Image | None = None  # for images that cannot be read
        self.skipped: dict[int, str] = {}

    def __enter__(self) -> Self:
        # Created here, not in __init__, so that no thread outlives the block or crosses a fork.
        self._pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._pictures.clear()

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Load images as one batch.

        Parameters
        ----------
        indices : sequence of int, of length B
            Indices may repeat within a call (padding) or between calls (a retry with a smaller
            batch); each image is decoded only once. Images before the lowest index are dropped
            from memory.

        Returns
        -------
        Tensor of shape (B, 3, H, W), dtype float32
            In [-1, 1].

        Raises
        ------
        InputValueError
            If an image cannot be read, or sizes differ and ``size`` is None.
        """
        return to_tensor_batch(self.pictures(indices))

    def pictures(self, indices: Sequence[int]) -> list[Image.Image]:
        """Load images as pictures, of which calling the loader makes a batch.

        Parameters
        ----------
        indices : sequence of int, of length B

        Returns
        -------
        list of PIL.Image.Image
            In RGB and resized.

        Raises
        ------
        InputValueError
            If an image cannot be read.
        """
        first, last = min(indices), max(indices)
        for place in [place for place in self._pictures if place < first]:
            self._pictures.pop(place).cancel()
        following = range(last + 1, min(last + 1 + self._ahead, len(self._images)))
        for place in (*indices, *following):
            if place not in self._pictures:
                self._pictures[place] = self._pool.submit(self._read, place)
        found = [self._result(place) for place in indices]
        return [self._replacement(last + 1) if picture is None else picture for picture in found]

    def _result(self, place: int) -> Image.Image | None:
        """Return a picture; None if it cannot be read and is skipped."""
        try:
            self._stand_in = self._pictures[place].result()
        except InputError as error:
            if not self._skip:
                raise
            self.skipped[place] = str(error)
            return None
        return self._stand_in

    def _replacement(self, first: int) -> Image.Image:
        """Return a picture in the size of those that can be read; search from ``first`` on."""
        if self._stand_in is None and self._size is not None:
            self._stand_in = Image.new("RGB", self._size[::-1])
        elif self._stand_in is None:
            self._stand_in = Image.new("RGB", _UNKNOWN_SIZE)
            for place in range(first, len(self._images)):
                with suppress(InputError):
                    self._stand_in = self._read(place)
                    break
        return self._stand_in

    def _read(self, place: int) -> Image.Image:
        return resize_image(self._images[place], self._size, self._mode)
