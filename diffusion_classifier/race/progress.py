"""Progress of a run: a bar in terminals and notebooks, lines of text in logs."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import current_process
from typing import Any, Literal

import numpy as np

from ..errors import InputValueError
from ..utils.display import short_repr
from .source import Result

Verbosity = Literal["auto"] | bool | int


class Progress:
    """Progress of evaluations, with the number of decided images and the time left.

    A race's number of evaluations is known only at its end. The total is the maximum at first,
    and then estimated from the images decided so far: races mostly end before the budget.

    Parameters
    ----------
    n_images : int
    max_evaluations : callable
        Returns the maximum number of evaluations per image; called only if progress is shown.
    verbose : "auto", bool or int
        0 is silent. 1 shows a bar in a terminal or notebook, and elsewhere, as in a log, one line
        per tenth of the work. "auto" shows a bar only in a terminal or notebook, in the main
        process, and if the work takes more than a second.

    Raises
    ------
    InputValueError
        If ``verbose`` is not one of these.
    """

    def __init__(
        self, n_images: int, max_evaluations: Callable[[], int], verbose: Verbosity
    ) -> None:
        automatic = isinstance(verbose, str) and verbose == "auto"
        if not (automatic or (isinstance(verbose, int | np.integer | np.bool_) and verbose >= 0)):
            raise InputValueError(
                f'verbose={short_repr(verbose)} is not known; use "auto", 0 or 1.'
            )
        self.n_evaluations = 0
        self._n_images, self._max_evaluations = n_images, max_evaluations
        self._n_decided = self._n_of_decided = self._n_recorded = 0
        self._bar: Any = None
        if is_watched() if automatic else verbose:
            make = _make_bar if is_interactive() else _Lines
            self._bar = make(n_images * max_evaluations(), delay=1 if automatic else 0)

    @property
    def is_shown(self) -> bool:
        """Whether progress is shown."""
        return self._bar is not None

    @property
    def total(self) -> int:
        """Expected number of all evaluations, recorded ones excepted."""
        most = self._n_images * self._max_evaluations()
        if self._n_decided:
            mean = self._n_of_decided / self._n_decided
            most = min(most, round(mean * self._n_images))
        return max(self.n_evaluations, most - self._n_recorded)

    def add_evaluations(self, n: int) -> None:
        """Count ``n`` rows that went through the network."""
        self.n_evaluations += n
        self._show(n)

    def add_recorded(self, n: int) -> None:
        """Count ``n`` errors that were looked up; they are no part of the total."""
        self._n_recorded += n
        self._show()

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results, and count each as a decided image once the caller has kept it."""
        for result in results:
            yield result
            self._n_decided += 1
            self._n_of_decided += result.n_evaluations
            if self._bar is not None:
                self._bar.set_postfix_str(f"{self._n_decided}/{self._n_images} images", False)
            self._show()

    def _show(self, n: int = 0) -> None:
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _make_bar(total: int, delay: float) -> Any:
    """Make the bar of a terminal or notebook."""
    from tqdm.auto import tqdm  # a widget in notebooks

    return tqdm(
        total=total,
        desc="classify",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} evaluations "
        "[{elapsed}<{remaining}{postfix}]",
        delay=delay,
    )


class _Lines:
    """Stands in for a bar where it would fill a log: prints a line per tenth of the work.

    Parameters
    ----------
    total : int
    delay : float
        Ignored.
    """

    def __init__(self, total: int, delay: float = 0) -> None:
        self.total, self.n = total, 0
        self._images, self._start = "", time.perf_counter()
        self._tenth, self._last = 0, ""

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self._images = f", {text}"

    def update(self, n: int) -> None:
        """Count n evaluations, and print a line if another tenth is done, but the last."""
        self.n += n
        tenth = 10 * self.n // max(self.total, 1)
        if n and self._tenth < tenth < 10:
            self._tenth = tenth
            self._print()

    def close(self) -> None:
        """Print how the work ended, unless the last line says so."""
        self._print()

    def _print(self) -> None:
        from tqdm import tqdm

        state = f"{self.n}/{self.total} evaluations{self._images}"
        if state == self._last:
            return
        self._last = state
        elapsed = time.perf_counter() - self._start
        left = elapsed * (self.total - self.n) / self.n if self.n else None
        times = [tqdm.format_interval(t) if t is not None else "?" for t in (elapsed, left)]
        percent = 100 * self.n / self.total if self.total else 100
        print(
            f"classify: {percent:3.0f}%, {state} [{'<'.join(times)}]", file=sys.stderr, flush=True
        )


def is_watched() -> bool:
    """Whether output is visible: in a terminal or notebook, and not in a worker process."""
    if multiprocessing.parent_process() is not None or "LokyProcess" in current_process().name:
        return False
    return is_interactive()


def is_interactive() -> bool:
    """Whether output goes to a terminal or notebook, which can redraw a line."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()
