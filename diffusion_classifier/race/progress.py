"""Progress bar that counts evaluations."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from multiprocessing import current_process
from typing import Literal

import numpy as np

from ..errors import InputValueError
from .source import Result

Verbosity = Literal["auto"] | bool | int


class Progress:
    """Progress bar of evaluations, with the number of decided images and the time left.

    A race's number of evaluations is known only at its end. The total therefore starts at the
    maximum and shrinks, with each decided image, by the evaluations that it did not need.

    Parameters
    ----------
    n_images : int
    max_evaluations : int
        Maximum number of evaluations per image.
    verbose : "auto", bool or int
        0 is silent. "auto" shows a bar only in a terminal or notebook, in the main process, and
        if the work takes more than a second.

    Raises
    ------
    InputValueError
        If ``verbose`` is not one of these.
    """

    def __init__(self, n_images: int, max_evaluations: int, verbose: Verbosity) -> None:
        from tqdm.auto import tqdm  # a widget in notebooks

        automatic = isinstance(verbose, str) and verbose == "auto"
        if not (automatic or (isinstance(verbose, int | np.integer | np.bool_) and verbose >= 0)):
            raise InputValueError(f'verbose={verbose!r} is not known; use "auto", 0 or 1.')
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

    @property
    def is_shown(self) -> bool:
        """Whether the bar is drawn."""
        return not self._bar.disable

    @property
    def total(self) -> int:
        """Current upper bound of all evaluations; updated only if the bar is drawn."""
        return self._bar.total

    def add_evaluations(self, n: int) -> None:
        """Count ``n`` rows that went through the network."""
        self.n_evaluations += n
        self._bar.update(n)

    def add_recorded(self, n: int) -> None:
        """Take ``n`` evaluations off the total, as their errors were already recorded."""
        self._shorten(n)

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results and count them as decided images."""
        for result in results:
            self._n_done += 1
            self._bar.set_postfix_str(f"{self._n_done}/{self._n_images} images", refresh=False)
            self._shorten(self._max_evaluations - result.n_evaluations)
            yield result

    def _shorten(self, n: int) -> None:
        if self.is_shown:
            self._bar.total -= n  # drawn with the next update

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def is_watched() -> bool:
    """Whether output is visible: in a terminal or notebook, and not in a worker process."""
    if multiprocessing.parent_process() is not None or "LokyProcess" in current_process().name:
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()
