"""A progress bar of evaluations, where somebody watches."""

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
    """A bar of evaluations, with images done and time left.

    How many evaluations a race takes is known only at its end. The total starts at the most they
    can be, and shrinks by what each decided image did not need.

    Parameters
    ----------
    n_images : int
    max_evaluations : int
        Most evaluations that one image can take.
    verbose : "auto", bool or int
        0 is silent. "auto" shows a bar only in a terminal or a notebook, in the main process, and
        for work of more than a second.

    Raises
    ------
    ValueError
        If ``verbose`` is not one of these.
    """

    def __init__(self, n_images: int, max_evaluations: int, verbose: Verbosity) -> None:
        from tqdm.auto import tqdm  # in a notebook, one of its widgets

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
        """Whether a bar is drawn."""
        return not self._bar.disable

    @property
    def total(self) -> int:
        """Most evaluations that the whole work can still come to, if a bar is drawn."""
        return self._bar.total

    def add_evaluations(self, n: int) -> None:
        """Rows that went through the network."""
        self.n_evaluations += n
        self._bar.update(n)

    def add_recorded(self, n: int) -> None:
        """Evaluations that were not needed, as their errors were recorded before."""
        self._shorten(n)

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on, and count them."""
        for result in results:
            self._n_done += 1
            self._bar.set_postfix_str(f"{self._n_done}/{self._n_images} images", refresh=False)
            self._shorten(self._max_evaluations - result.n_evaluations)
            yield result

    def _shorten(self, n: int) -> None:
        if self.is_shown:
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
