"""How commands run: block by block, with progress, until the end, an error, the time cap or Ctrl-C.

What was finished before is kept in any case: the exception that ends a block has the errors of
its finished images as ``partial``.
"""

from __future__ import annotations

import _thread
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import typer

from ..callbacks import Callback, RaceEnd, RaceResult, Tenths
from ..classifier import DiffusionClassifier
from ..errors import DiffusionClassifierError, NonFiniteOutputError
from .shell import Exit, is_terminal

BLOCK = 256  # images whose errors are held at once
Part = TypeVar("Part")
# A quoted text, such as a path, or the number of an image.
_NUMBER = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\bimage (\d+)\b""")


class Outcome(NamedTuple, Generic[Part]):
    """What a run found, and how it ended.

    Attributes
    ----------
    parts : list
        One per block, the last one of its finished images.
    code : Exit
        ANSWERED, FAILED, TIME or INTERRUPTED.
    failure : DiffusionClassifierError or None
        The error that ended it.
    """

    parts: list[Part]
    code: Exit
    failure: DiffusionClassifierError | None


def in_blocks(
    n: int,
    work: Callable[[slice], Part],
    rescue: Callable[[slice, Any], Part],
    max_minutes: float | None = None,
) -> Outcome[Part]:
    """Work on n images block by block.

    Parameters
    ----------
    n : int
    work : callable
        Called with the places of a block.
    rescue : callable
        Called with the block that was not finished, and the ErrorTable of its finished images.
    max_minutes : float, optional
        Time cap.

    Returns
    -------
    Outcome
    """
    parts: list[Part] = []
    block, over = slice(0, 0), threading.Event()
    try:
        with _time_cap(max_minutes, over):
            for start in range(0, n, BLOCK):
                block = slice(start, min(start + BLOCK, n))
                parts.append(work(block))
    except (KeyboardInterrupt, DiffusionClassifierError) as stop:
        partial = getattr(stop, "partial", None)
        if partial is not None:
            parts.append(rescue(block, partial))
        if isinstance(stop, KeyboardInterrupt):
            return Outcome(parts, Exit.TIME if over.is_set() else Exit.INTERRUPTED, None)
        return Outcome(parts, Exit.FAILED, stop)
    return Outcome(parts, Exit.ANSWERED, None)


@contextmanager
def numbered(
    places: Sequence[int], kind: type[DiffusionClassifierError] = DiffusionClassifierError
) -> Iterator[None]:
    """Let errors of a kind name images by their places in the whole input, not in the block."""

    def placed(found: re.Match[str]) -> str:
        number = found[1]
        known = number is not None and int(number) < len(places)
        return f"image {places[int(number)]}" if known else found[0]

    try:
        yield
    except kind as error:
        if error.args:
            error.args = (_NUMBER.sub(placed, str(error.args[0])), *error.args[1:])
        if isinstance(error, NonFiniteOutputError) and error.image is not None:
            error.image = places[error.image]
        raise


def without_numbers(records: Sequence[dict[str, Any]]) -> None:
    """Remove images' numbers within a block from the reasons of records, which have names."""
    for record in records:
        if record["error"]:
            record["error"] = re.sub(r"^image \d+:? ", "", record["error"])


def finish(outcome: Outcome[Any], n_done: int, n: int, memory: str | None, skipped: bool) -> None:
    """Say how a run ended, and end the process with its code."""
    code = outcome.code
    if code in (Exit.TIME, Exit.INTERRUPTED):
        reason = "stopped at the time cap" if code == Exit.TIME else "interrupted"
        hint = "run it again to go on" if memory else "with --memory DIR the same command resumes"
        typer.echo(f"{reason}: {n_done} of {n} images; {hint}.", err=True)
    if outcome.failure is not None:
        typer.echo(f"{n_done} of {n} images were answered before this:", err=True)
        raise outcome.failure
    raise typer.Exit(Exit.SKIPPED if code == Exit.ANSWERED and skipped else code)


@contextmanager
def _time_cap(minutes: float | None, over: threading.Event) -> Iterator[None]:
    """After this time set ``over`` and interrupt the block, as Ctrl-C would."""

    def stop() -> None:
        over.set()
        _thread.interrupt_main()

    if minutes is None:
        yield
        return
    # The shell lets its background jobs ignore Ctrl-C, and with it this interrupt.
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(60 * minutes, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if not callable(handler):
            signal.signal(signal.SIGINT, handler)


class Counter(Callback):
    """Counts the images of all blocks, and shows how many are done.

    Parameters
    ----------
    show : callable
        Called with the number of images that were answered or skipped.
    """

    def __init__(self, show: Callable[[int], None]) -> None:
        self.show = show
        self.n_before = self.n = 0

    def on_image(self, result: RaceResult) -> None:
        self.n += 1
        self.show(self.n_before + self.n)

    def on_end(self, end: RaceEnd) -> None:
        if end.error is None:
            self.n_before, self.n = self.n_before + end.n_images, 0
            self.show(self.n_before)


@contextmanager
def progress(clf: DiffusionClassifier, total: int, quiet: bool) -> Iterator[None]:
    """Show how many of the images are done: a bar in a terminal, in logs a line per tenth."""
    if quiet or not total:
        yield
    elif is_terminal():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True)
        with Progress("images", *columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("images", total=total)
            clf.callbacks = [Counter(lambda n: bar.update(task, completed=n))]
            yield
    else:
        tenths = Tenths(total)

        def show(n: int) -> None:
            if (line := tenths.line(n)) is not None:
                typer.echo(line, err=True)

        clf.callbacks = [Counter(show)]
        yield
