"""Batches of pictures, decoded in a few threads ahead of the network that will ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from PIL import Image
from torch import Tensor

from .resize import resize_image, to_tensor_batch
from .sequence import ImageSequence

DECODE_THREADS = 4
DECODE_AHEAD = 32  # pictures, at the size that the model takes: 25 MB at 512 x 512


class PictureLoader:
    """Pictures as tensors, batch after batch; the next ones are decoded meanwhile.

    While it is entered, every call starts to read and resize the ``ahead`` pictures that follow
    those asked for, so that they are ready when the network comes to them. What a picture raises
    is raised when it is asked for, and never if it is not. Threads end with the ``with`` block,
    however it is left.

    Parameters
    ----------
    images : ImageSequence
    size : tuple of (int, int) or None
        Height and width in pixels; None takes images as they come, all of one size.
    mode : {"crop", "pad", "squash"}
        See :func:`~diffusion_classifier.images.resize_image`.
    ahead : int, default=32
        Most pictures held beside those of the last call.

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
    ) -> None:
        self._images = images
        self._size = size
        self._mode = mode
        self._ahead = ahead
        self._pictures: dict[int, Future[Image.Image]] = {}

    def __enter__(self) -> Self:
        # Made here and not with the object, so that no thread outlives its use or crosses a fork.
        self._pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._pictures.clear()

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Some images as one batch.

        Parameters
        ----------
        indices : sequence of int, of length B
            Those of one call may repeat (padding does), and overlap with those of the call before
            (smaller batches do, once memory has run out): none is decoded twice. What lies before
            the first of them is forgotten.

        Returns
        -------
        Tensor of shape (B, 3, H, W), dtype float32
            In [-1, 1].

        Raises
        ------
        ValueError
            If an image cannot be read, or sizes differ and ``size`` is None.
        """
        first, last = min(indices), max(indices)
        for place in [place for place in self._pictures if place < first]:
            self._pictures.pop(place).cancel()
        following = range(last + 1, min(last + 1 + self._ahead, len(self._images)))
        for place in (*indices, *following):
            if place not in self._pictures:
                self._pictures[place] = self._pool.submit(self._read, place)
        return to_tensor_batch([self._pictures[place].result() for place in indices])

    def _read(self, place: int) -> Image.Image:
        return resize_image(self._images[place], self._size, self._mode)
