"""``convert``: pickled weights, which models are never read from, to safetensors."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ...backends.loading.convert import convert_weights
from ..options import Config
from ..shell import printable, usage


def convert(
    source: Annotated[
        Path, typer.Argument(help="Checkpoint (.ckpt, .pt, .pth, .bin), or a folder with .bin.")
    ],
    dest: Annotated[
        Path, typer.Argument(help="New file (.safetensors) or folder; nothing is overwritten.")
    ],
    config: Config = None,
) -> None:
    """Convert pickled weights to safetensors, in a process of its own that runs no code in them."""
    with usage(), terminated():
        done = convert_weights(source, dest)
    files, tensors = counted(done.n_files, "file"), counted(done.n_tensors, "tensor")
    typer.echo(printable(f"{done.path}: {files} of weights, {tensors}"))
    if done.left_out:
        typer.echo(f"left out: {printable(', '.join(done.left_out))}")


@contextmanager
def terminated() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C: what was begun is removed, and the other process ends."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may set handlers
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def counted(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> counted(2, "file")
    '2 files'
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
