"""How many rows go through the network at once, and fewer once memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import OutOfMemoryError
from ..utils.validation import check_positive_integer

# Latent elements per batch that keep a device busy; found on 2 CPU cores and, for CUDA, meant
# to fit Stable Diffusion in half precision on 16 GB (larger batches gain little).
_CPU_BATCH_ELEMENTS = 2**15
_GPU_BATCH_ELEMENTS = 2**20
_MAX_BATCH = 512
_BATCHES_PER_STEP = 8


class BatchSize:
    """Rows per network call, smaller once memory has run out.

    Parameters
    ----------
    batch_size : "auto" or int
        A number makes every batch exactly that long, the last one padded: on a CPU, results
        are then equal to the bit whatever else is in the call. "auto" pads the last batch to a
        power of two only.
    device : torch.device
    n_elements : int
        Elements of one latent.

    Raises
    ------
    ValueError
        If ``batch_size`` is neither "auto" nor a positive integer.
    """

    def __init__(self, batch_size: Any, device: torch.device, n_elements: int) -> None:
        self.fixed = not (isinstance(batch_size, str) and batch_size == "auto")
        if self.fixed:
            self.rows = check_positive_integer("batch_size", batch_size)
        else:
            budget = _CPU_BATCH_ELEMENTS if device.type == "cpu" else _GPU_BATCH_ELEMENTS
            self.rows = min(_MAX_BATCH, max(1, 2 ** round(math.log2(budget / n_elements))))

    @property
    def rows_wanted(self) -> int:
        """Rows per step: enough that the padding of its last batch is little."""
        return self.rows * _BATCHES_PER_STEP

    def padded(self, n_rows: int) -> int:
        """Length of a batch that holds ``n_rows`` rows."""
        if self.fixed or n_rows >= self.rows:
            return self.rows
        return 2 ** math.ceil(math.log2(n_rows))

    def halve(self, error: BaseException) -> None:
        """Try again with half as many rows.

        Raises
        ------
        RuntimeError
            If one row is too much already.
        """
        if self.rows == 1:
            raise OutOfMemoryError(
                "out of memory with a single row; use a smaller image_size, a half-precision "
                'dtype ("float16" or "bfloat16"), a smaller model, or another device.'
            ) from error
        self.rows //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that the device's memory ran out."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


IMAGES_PER_ENCODING = 8


def encode_from(
    encode: Callable[[Sequence[int]], Tensor], first: int, n_images: int, batch: BatchSize
) -> Tensor:
    """Latents of a batch of images from ``first`` on, smaller once memory runs out."""
    while True:
        indices = list(range(first, min(first + batch.rows, n_images)))
        padding = batch.padded(len(indices)) - len(indices)
        try:
            return encode(indices + indices[-1:] * padding)[: len(indices)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            batch.halve(error)
