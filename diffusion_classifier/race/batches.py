"""Batch sizes: chosen by memory, halved when it runs out, and doubled again after successes.

Where memory can be measured, the first three batches are short and tell how many rows fit (see
:mod:`.memory`); their rows are part of the work. Memory may run out all the same: for a moment,
because others use the device, or always above some size. A size that worked is tried once more
before it is halved. After m failures in a row, a size is tried again after ``2^m`` successful
smaller batches. Hence a passing shortage costs little, and the retries at a lasting limit become
ever rarer.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..backends.base import check_output
from ..errors import NonFiniteOutputError, OutOfMemoryError
from ..utils.validation import check_positive_integer
from .memory import Memory

BatchSizeOption = int | Literal["auto"]
Output = TypeVar("Output")

# Latent elements per batch that keep a device busy. The CPU value was measured on 2 cores; the
# GPU value fits Stable Diffusion in half precision in 16 GB (larger batches gain little).
_CPU_BATCH_ELEMENTS = 2**15
_GPU_BATCH_ELEMENTS = 2**20
# A batch this many times shorter than a full one is short. Where a call costs as much as 7 rows, as
# on a CPU, races of few images that fill half a batch took 0.6 to 0.95 of the time of others.
_CPU_FEW, _GPU_FEW = 2, 4
_SHORT = 4  # a full batch of a compiled network is this many times as long as a short one
_MAX_BATCH = 512
_BATCHES_PER_STEP = 8
_MOST_ATTEMPTS = 5  # at a single row
_ASK_AFTER = 32  # successful batches after which free memory is looked at again
IMAGES_PER_ENCODING = 8


class BatchSize:
    """Number of rows per network call, adapted whenever memory runs out.

    Parameters
    ----------
    rows : int
        Initial and largest number of rows per call.
    padded_to_full : bool, default=False
        Whether short batches are padded to ``rows``. On a CPU, the results of a row are then
        bit-identical whatever else is in the batch.
    two_lengths : bool, default=False
        Whether batches are padded to ``rows`` or a quarter of it, for networks that are compiled
        anew for every number of rows, which takes a minute or so.
    few_rows : int, default=0
        Number of rows that take little longer than a single one.
    memory : Memory, optional
        Memory of the device, and what is known of these calls. Unless every batch has the size that
        the user set, the size is chosen by what fits; sizes that failed are kept in any case.
    """

    def __init__(
        self,
        rows: int,
        *,
        padded_to_full: bool = False,
        two_lengths: bool = False,
        few_rows: int = 0,
        memory: Memory | None = None,
    ) -> None:
        self.rows = rows
        self.padded_to_full = padded_to_full
        self.two_lengths = two_lengths
        self._few_rows = few_rows
        self._most = rows
        self._memory = memory
        self._larger: list[int] = []  # the sizes that were halved, in this order
        self._n_successes = 0  # since the size last changed
        self._n_failures: dict[int, int] = {}  # in a row, of each size
        self._is_fitted = False
        self._resume()

    @classmethod
    def of_network(
        cls,
        batch_size: BatchSizeOption,
        device: torch.device,
        n_elements: int,
        *,
        compiled: bool = False,
        memory: Memory | None = None,
    ) -> BatchSize:
        """Choose the batch size of a denoiser.

        Parameters
        ----------
        batch_size : "auto" or int
            The estimator's parameter. With a number, every batch has exactly that length.
        device : torch.device
        n_elements : int
            Number of elements of one latent.
        compiled : bool, default=False
            Whether the network is compiled anew for every number of rows.
        memory : Memory, optional
            Memory of the device.

        Raises
        ------
        InputValueError
            If ``batch_size`` is neither "auto" nor a positive integer.
        """
        if is_fixed(batch_size):
            rows = check_positive_integer("batch_size", batch_size)
            return cls(rows, padded_to_full=True, memory=memory)
        on_cpu = device.type == "cpu"
        budget = _CPU_BATCH_ELEMENTS if on_cpu else _GPU_BATCH_ELEMENTS
        rows = min(_MAX_BATCH, max(1, 2 ** round(math.log2(budget / n_elements))))
        few_rows = rows // (_CPU_FEW if on_cpu else _GPU_FEW)
        return cls(rows, two_lengths=compiled, few_rows=few_rows, memory=memory)

    @classmethod
    def of_encoder(
        cls, batch_size: BatchSizeOption = "auto", memory: Memory | None = None
    ) -> BatchSize:
        """Choose the batch size of an image encoder, padded only if the user set a batch size."""
        return cls(IMAGES_PER_ENCODING, padded_to_full=is_fixed(batch_size), memory=memory)

    @property
    def rows_wanted(self) -> int:
        """Rows per step: several batches, so that padding the last one costs little."""
        return self.rows * _BATCHES_PER_STEP

    @property
    def few_rows(self) -> int:
        """Rows that take little longer than a single one.

        Padding would fill their place, or the cost of a call outweighs that of its rows.
        """
        return self.rows if self.padded_to_full else min(self._few_rows, self.rows)

    def next_batch(self, n_left: int, most: int) -> int:
        """Return the length of the next batch, of at most ``most`` rows, if ``n_left`` are left.

        Batches without padding are of equal length, so that the last one is not a short one.
        """
        if self.padded_to_full or self.two_lengths:
            return min(n_left, most)
        n_batches = -(-n_left // most)
        return -(-n_left // n_batches)

    def padded(self, n_rows: int) -> int:
        """Return the padded length of a batch of ``n_rows`` rows."""
        if self.padded_to_full:
            return self.rows
        if self.two_lengths:
            short = -(-self.rows // _SHORT)
            return short if n_rows <= short else self.rows
        return n_rows

    def attempt(self, call: Callable[[int], Output]) -> Output:
        """Run one batch, and retry with fewer rows when memory runs out.

        Parameters
        ----------
        call : callable
            ``call(rows)`` computes one batch of at most ``rows`` rows.

        Returns
        -------
        object
            The result of the first call that fits in memory.

        Raises
        ------
        OutOfMemoryError
            If a single row does not fit, several times in a row.
        """
        while True:
            rows = self._next_rows()
            try:
                output = self._run(call, rows)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(rows, error)
                # A frame that kept the error would keep its tensors too, until a collection.
                traceback.clear_frames(error.__traceback__)
            else:
                if rows == self.rows:
                    self._grow()
                else:
                    self._fit()
                return output
            # Only now, without the error, are the tensors of the failed call free.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _resume(self) -> None:
        """Start with the size that fits by what is known, and with the sizes that failed."""
        if self._memory is None:
            return
        usage = self._memory.usage
        if (state := usage.sizes.get((self._most, self.padded_to_full))) is not None:
            self.rows, larger, failures, self._n_successes = state
            self._larger, self._n_failures = list(larger), dict(failures)
        self._fit()

    def _fit(self) -> None:
        """Choose the size that fits as soon as it is known, also if another thread measured."""
        memory = self._memory
        if memory is not None and not self.padded_to_full and memory.usage.measured:
            if not self._is_fitted:
                self.rows = memory.fitting(self.rows if self._larger else self._most)
            self._is_fitted = True

    def _keep(self) -> None:
        """Note the size for other objects of the same calls."""
        if self._memory is not None:
            failures = dict(self._n_failures)
            state = self.rows, tuple(self._larger), failures, self._n_successes
            self._memory.usage.sizes[self._most, self.padded_to_full] = state

    def _next_rows(self) -> int:
        """Return the number of rows of the next batch: few as long as their memory is unknown."""
        self._fit()
        memory = self._memory
        if memory is None or self.padded_to_full or memory.usage.measured:
            return self.rows
        few, many = memory.probes(self.rows)
        return many if memory.usage.peaks else few

    def _run(self, call: Callable[[int], Output], rows: int) -> Output:
        """Run a batch; note the memory that it took as long as that is not known."""
        memory = self._memory
        if memory is None:
            return call(rows)
        with memory.call():
            if rows == self.rows:
                return call(rows)
            if not memory.usage.warm:  # a first call also loads kernels, or weights
                memory.usage.warm = True
                return call(rows)
            output, length = memory.measure(
                lambda: call(rows),
                lambda output: self.padded(len(output) if isinstance(output, Tensor) else rows),
            )
            if length is not None:
                _, many = memory.probes(self.rows)
                # Batches of equal length may be a little shorter than they could be.
                memory.usage.measured = length > self.padded(many) // 2
            return output

    def _shrink(self, rows: int, error: BaseException) -> None:
        """Note a failure, and halve the size unless it worked the time before."""
        worked = self._n_failures.get(rows) == 0
        n_failures = self._n_failures[rows] = self._n_failures.get(rows, 0) + 1
        if rows == 1 and n_failures >= _MOST_ATTEMPTS:
            raise OutOfMemoryError(
                "out of memory with a single row; use a smaller image_size, a half-precision "
                'dtype ("float16" or "bfloat16"), a smaller model, or another device. It ran out '
                f"{n_failures} times in a row."
            ) from error
        if rows > 1 and not worked:
            self._larger += [self.rows] if self.rows > rows else []
            self._larger.append(rows)
            self.rows = rows // 2
        self._n_successes = 0
        if self._memory is not None and not self.padded_to_full:
            self._memory.usage.measured = self._is_fitted = True  # or as much as can be
        self._keep()

    def _grow(self) -> None:
        """Note a success, and try the next larger size again after enough of them."""
        self._n_failures[self.rows] = 0
        self._n_successes += 1
        if self._larger:
            if self._n_successes >= 2 ** self._n_failures.get(self._larger[-1], 1):
                self.rows = self._larger.pop()
                self._n_successes = 0
            self._keep()
        elif self.rows < self._most and self._n_successes >= _ASK_AFTER and not self.two_lengths:
            assert self._memory is not None  # which made the size smaller
            self.rows = max(self.rows, self._memory.fitting(self._most))
            self._n_successes = 0


def is_fixed(batch_size: BatchSizeOption) -> bool:
    """Whether the user set the batch size, so that it is not chosen for the device."""
    return not (isinstance(batch_size, str) and batch_size == "auto")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device ran out of memory."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def encode_from(
    encode: Callable[[Sequence[int]], Tensor], first: int, n_images: int, batch: BatchSize
) -> Tensor:
    """Encode one batch of images, starting at index ``first``.

    Raises
    ------
    OutputShapeError
        If the encoder does not return one floating-point latent per image.
    NonFiniteOutputError
        If a latent has NaN or infinity.
    """

    def encode_rows(rows: int) -> Tensor:
        indices = list(range(first, min(first + rows, n_images)))
        padding = batch.padded(len(indices)) - len(indices)
        latents = encode(indices + indices[-1:] * padding)
        source = f"encoding of images {first} to {indices[-1]}"
        check_output(latents, (len(indices) + padding, ...), source)
        return latents[: len(indices)]

    latents = batch.attempt(encode_rows)
    bad = (~latents.isfinite().reshape(len(latents), -1).all(1)).nonzero()[:, 0]
    if len(bad):
        raise NonFiniteOutputError(
            f"image {first + int(bad[0])} has a latent with NaN or infinity, in {latents.dtype}. "
            "Check the image, and the encoder's weights and dtype."
        )
    return latents
