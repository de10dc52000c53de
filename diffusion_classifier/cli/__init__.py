"""The command line: ``diffusion-classifier``, or ``python -m diffusion_classifier``.

One file per command, in ``commands/``. Exit codes: 0, all done; 1, an image or the network is at
fault; 2, the command line is; 3, some images were skipped; 4, the time cap came first; 130, Ctrl-C;
141, what read stdout has ended. Answers that were found before are written, whatever the code,
unless there are none. With ``--memory`` the same command goes on where it stopped.
"""

from __future__ import annotations

import warnings
from typing import Annotated, Any

import typer

from .._version import __version__
from .commands import COMMANDS
from .shell import Exit, Shell, one_line

__all__ = ["Exit", "app", "main"]

app = typer.Typer(
    cls=Shell,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Classify images with a diffusion model, by the names of the classes alone.",
    epilog="Exit codes: 0 all done, 1 an image or the network failed, 2 wrong usage, 3 some images "
    "skipped, 4 time cap, 130 Ctrl-C, 141 stdout was closed.",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; warnings are one line too."""
    warnings.showwarning = _show_warning
    app()


def _show_warning(message: Warning | str, *where: Any, **kwargs: Any) -> None:
    typer.echo(f"warning: {one_line(str(message))}", err=True)
