"""How many rows go through the network at once, and fewer once memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..errors import OutOfMemoryError
from ..utils.validation import check_positive_integer

BatchSizeOption = int | Literal["auto"]
Output = TypeVar("Output")

# Latent elements per batch that keep a device busy; found on 2 CPU cores and, for CUDA, meant
# to fit Stable Diffusion in half precision on 16 GB (larger batches gain little).
_CPU_BATCH_ELEMENTS = 2**15
_GPU_BATCH_ELEMENTS = 2**20
_MAX_BATCH = 512
_BATCHES_PER_STEP = 8
IMAGES_PER_ENCODING = 8


class BatchSize:
    """Rows per call of a network, fewer once memory has run out.

    Parameters
    ----------
    rows : int
        Rows per call to begin with.
    padded_to_full : bool, default=False
        Whether the last batch is padded to the length of all others. On a CPU, results are then
        equal to the bit whatever else is in the call. Otherwise it is padded to a power of two.
    """

    def __init__(self, rows: int, *, padded_to_full: bool = False) -> None:
        self.rows = rows
        self.padded_to_full = padded_to_full

    @classmethod
    def of_network(
        cls, batch_size: BatchSizeOption, device: torch.device, n_elements: int
    ) -> BatchSize:
        """The batch size of a denoiser.

        Parameters
        ----------
        batch_size : "auto" or int
            The estimator's parameter. A number makes every batch exactly that long.
        device : torch.device
        n_elements : int
            Elements of one latent.

        Raises
        ------
        InputValueError
            If ``batch_size`` is neither "auto" nor a positive integer.
        """
        if is_fixed(batch_size):
            return cls(check_positive_integer("batch_size", batch_size), padded_to_full=True)
        budget = _CPU_BATCH_ELEMENTS if device.type == "cpu" else _GPU_BATCH_ELEMENTS
        return cls(min(_MAX_BATCH, max(1, 2 ** round(math.log2(budget / n_elements)))))

    @classmethod
    def of_encoder(cls, batch_size: BatchSizeOption = "auto") -> BatchSize:
        """The batch size of an image encoder, padded as the denoiser's batches are."""
        return cls(IMAGES_PER_ENCODING, padded_to_full=is_fixed(batch_size))

    @property
    def rows_wanted(self) -> int:
        """Rows per step: enough that the padding of its last batch is little."""
        return self.rows * _BATCHES_PER_STEP

    def padded(self, n_rows: int) -> int:
        """Length of a batch that holds ``n_rows`` rows."""
        if self.padded_to_full or n_rows >= self.rows:
            return self.rows
        return 2 ** math.ceil(math.log2(n_rows))

    def attempt(self, call: Callable[[int], Output]) -> Output:
        """Call with the number of rows, and with half as many each time memory runs out.

        Parameters
        ----------
        call : callable
            ``call(rows)`` does the work of one batch.

        Returns
        -------
        object
            What the first call that fits in memory returns.

        Raises
        ------
        OutOfMemoryError
            If one row is too much already.
        """
        while True:
            try:
                return call(self.rows)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)

    def _halve(self, error: BaseException) -> None:
        if self.rows == 1:
            raise OutOfMemoryError(
                "out of memory with a single row; use a smaller image_size, a half-precision "
                'dtype ("float16" or "bfloat16"), a smaller model, or another device.'
            ) from error
        self.rows //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_fixed(batch_size: BatchSizeOption) -> bool:
    """Whether every batch is to have one length, not one that is chosen for the device."""
    return not (isinstance(batch_size, str) and batch_size == "auto")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that the device's memory ran out."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def encode_from(
    encode: Callable[[Sequence[int]], Tensor], first: int, n_images: int, batch: BatchSize
) -> Tensor:
    """Latents of a batch of images, from index ``first`` on."""

    def encode_rows(rows: int) -> Tensor:
        indices = list(range(first, min(first + rows, n_images)))
        padding = batch.padded(len(indices)) - len(indices)
        return encode(indices + indices[-1:] * padding)[: len(indices)]

    return batch.attempt(encode_rows)
