"""Where and how the network runs: device, dtype, batch size, running out of memory, progress."""

from __future__ import annotations

import math
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from multiprocessing import current_process
from typing import Any

import numpy as np
import torch

from .race import Result
from .validation import check_positive_integer

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
# Latent elements per batch that keep a device busy; found on 2 CPU cores and, for CUDA, meant
# to fit Stable Diffusion in half precision on 16 GB (larger batches gain little).
_CPU_BATCH_ELEMENTS = 2**15
_GPU_BATCH_ELEMENTS = 2**20
_MAX_BATCH = 512
_BATCHES_PER_STEP = 8


def resolve_device(device: Any) -> torch.device:
    """``"auto"`` is CUDA, else MPS, else the CPU; anything else is torch's own naming.

    Raises
    ------
    ValueError
        If the name is not a device, or that device is not available here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f'device={device!r} is not known; use "auto", "cuda", "cuda:0", "mps" or "cpu".'
        ) from error
    if (resolved.type == "cuda" and not torch.cuda.is_available()) or (
        resolved.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise ValueError(f'device={device!r} is not available here; use "auto" or "cpu".')
    return resolved


def resolve_dtype(dtype: Any, device: torch.device) -> torch.dtype:
    """``"auto"`` is float16 on CUDA and float32 elsewhere. Errors are float32 in any case.

    Raises
    ------
    ValueError
        If the name is not one of the floating dtypes.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    for name, known in DTYPES.items():
        if dtype == known or (isinstance(dtype, str) and dtype == name):
            return known
    raise ValueError(f'dtype={dtype!r} is not known; use "auto" or one of {", ".join(DTYPES)}.')


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
            raise RuntimeError(
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


class Progress:
    """A bar of evaluations, with images done and time left.

    How many evaluations a race takes is known at its end only: the bar starts at the most they
    can be, and gives back what decided images did not need.

    Parameters
    ----------
    n_images : int
    max_evaluations : int
        Most evaluations that one image can take.
    verbose : "auto", bool or int
        0 is silent. "auto" is silent too unless somebody watches: it shows a bar in a terminal or
        a notebook, in the main process only, and when work takes more than a second.

    Raises
    ------
    ValueError
        If ``verbose`` is none of these.
    """

    def __init__(self, n_images: int, max_evaluations: int, verbose: Any) -> None:
        from tqdm.auto import tqdm  # in a notebook, one of its widgets

        automatic = isinstance(verbose, str) and verbose == "auto"
        if not (automatic or (isinstance(verbose, int | np.integer | np.bool_) and verbose >= 0)):
            raise ValueError(f'verbose={verbose!r} is not known; use "auto", 0 or 1.')
        self.n_evaluations = 0
        self._n_images, self._n_done = n_images, 0
        self._max_evaluations = max_evaluations
        self._bar = tqdm(
            total=n_images * max_evaluations,
            desc="classify",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} evaluations "
            "[{elapsed}<{remaining}{postfix}]",
            delay=1 if automatic else 0,
            disable=not (is_watched() if automatic else verbose),
        )

    def add_evaluations(self, n: int) -> None:
        """Rows that went through the network."""
        self.n_evaluations += n
        self._bar.update(n)

    def add_recorded(self, n: int) -> None:
        """Evaluations that were not needed, as their errors were recorded before."""
        self._shorten(n)

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """The results of images, counted as they pass."""
        for result in results:
            self._n_done += 1
            self._bar.set_postfix_str(f"{self._n_done}/{self._n_images} images", refresh=False)
            self._shorten(self._max_evaluations - result.n_evaluations)
            yield result

    def _shorten(self, n: int) -> None:
        if not self._bar.disable:
            self._bar.total -= n  # shown with the next update

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def is_watched() -> bool:
    """Whether somebody sees progress: in a terminal or a notebook, and not in a worker process."""
    if multiprocessing.parent_process() is not None or "LokyProcess" in current_process().name:
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()
