"""What all commands share: exit codes, and errors as one line that says what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import DiffusionClassifierError, InputError
from ..utils.text import printable


class Exit(IntEnum):
    """What the process returns to the shell."""

    ANSWERED = 0
    FAILED = 1
    USAGE = 2
    SKIPPED = 3
    TIME = 4
    INTERRUPTED = 130
    CLOSED = 141


# Typer has a click of its own or that of click, depending on its version.
_WrongUsage: Any = typer.BadParameter.__mro__[1]


class Shell(TyperGroup):
    """Group of commands that ends with one line and a code, whatever this package raises."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; tell errors and Ctrl-C."""
        try:
            return super().invoke(ctx)
        except _WrongUsage as error:
            name = getattr(getattr(error, "ctx", None), "command_path", "diffusion-classifier")
            message = error.format_message().rstrip(".")
            tell(f"{message}{'' if message.endswith('?') else '.'} See {name} --help.")
            raise typer.Exit(Exit.USAGE) from error
        except BrokenPipeError as error:
            # As with "| head": who reads the answers has enough. Python would complain at its end.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(Exit.CLOSED) from error
        except (DiffusionClassifierError, OSError, ImportError) as error:
            tell(str(error))
            raise typer.Exit(Exit.FAILED) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted: nothing was computed yet.", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from error


@contextmanager
def usage() -> Iterator[None]:
    """End with the code of wrong usage if what the command line names is wrong."""
    try:
        yield
    except InputError as error:
        tell(str(error))
        raise typer.Exit(Exit.USAGE) from error


def tell(message: str) -> None:
    """Print an error, as one line."""
    typer.echo(f"error: {one_line(message)}", err=True)


def one_line(message: str) -> str:
    """Return a message as one line that a terminal can show."""
    return printable(" ".join(message.splitlines()))


def is_terminal() -> bool:
    """Whether messages are seen as they are printed."""
    return sys.stderr.isatty()
