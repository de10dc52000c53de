"""The command line: ``diffusion-classifier``, or ``python -m diffusion_classifier``.

Exit codes: 0, every image has an answer; 1, an input or the network is at fault, and the message
says which; 2, wrong usage; 3, some images were skipped; 4, the time cap came first; 130, Ctrl-C.
The answers that were found before are written, whatever the code, unless there are none. With
``--memory`` the same command goes on where it stopped.
"""

from __future__ import annotations

import _thread
import csv
import glob
import io
import json
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ._version import __version__
from .classifier import DiffusionClassifier
from .errors import (
    DiffusionClassifierError,
    InputFileError,
    InputValueError,
    MissingFileError,
)
from .estimator.inputs import OnError
from .evaluation import predictions
from .images import read_images
from .images.files import list_images
from .pruners import PrunerName
from .utils.files import atomic_file, check_regular

BLOCK = 256  # images whose errors are held at once
COLUMNS = ("image", "label", "probability", "n_evaluations", "resolved", "runner_up", "error")


class Exit(IntEnum):
    """What the process returns to the shell."""

    ANSWERED = 0
    FAILED = 1
    USAGE = 2
    SKIPPED = 3
    TIME = 4
    INTERRUPTED = 130


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Classify images with a diffusion model, by the names of the classes alone.",
    epilog="Exit codes: 0 all answered, 1 an error, 2 wrong usage, 3 some images skipped, 4 time "
    "cap, 130 Ctrl-C.",
)


def main() -> None:
    """Run the command line, with one line for errors that say what to do."""
    warnings.showwarning = _show_warning
    try:
        app()
    except DiffusionClassifierError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(Exit.FAILED)


def _show_warning(message: Warning | str, *where: Any, **kwargs: Any) -> None:
    typer.echo(f"warning: {message}", err=True)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def predict(
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or globs; - reads a list of files from stdin."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", "-l", help="Class names, separated by commas.")
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="File with one class name per line, instead of --labels.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Folder or Hub id of a diffusers model. Default: the small model."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='Template such as "a photo of a {}"; may be repeated.'),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes per image in JSON.")] = 5,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write a JSON file.")] = None,
    jsonl_file: Annotated[
        Path | None, typer.Option("--jsonl", help="Write one JSON object per line and image.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Folder that keeps what was computed; the same command then resumes."),
    ] = None,
    on_error: Annotated[
        OnError,
        typer.Option(help="What to do about images that cannot be read."),
    ] = "raise",
    shard: Annotated[
        str | None, typer.Option(help="i/n: only the i-th of n parts, for n processes or machines.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this time, with the answers so far.")
    ] = None,
    pruner: Annotated[
        PrunerName, typer.Option(help="How classes that lose are dropped.")
    ] = "racing",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows per network call. Default: automatic.")
    ] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", "mps".')] = "auto",
    dtype: Annotated[
        str, typer.Option(help='"auto", "float32", "float16" or "bfloat16".')
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no answers.")] = False,
) -> None:
    """Classify images: print one line per image, or write CSV, JSON or JSON lines."""
    paths = in_shard(find_images(images or []), shard)
    names = read_labels(labels, labels_file)
    check_writable(csv_file, json_file, jsonl_file)
    if on_error == "raise" and paths:
        read_images(paths).check_files()  # before anything is loaded or computed
    clf = DiffusionClassifier(
        model,
        prompts=prompt or None,
        pruner=pruner,
        batch_size=batch_size or "auto",
        device=device,
        dtype=dtype,
        memory=memory,
        random_state=seed,
        verbose=0 if quiet else "auto",
    ).fit(None, names)
    found, code, failure = classify(clf, paths, top, on_error, max_minutes)
    rows = [{"image": shown(paths[number]), **record} for number, record in sorted(found.items())]
    report: dict[str, Any] = {
        "version": __version__,
        "model": model or "embedded",
        "labels": names,
        "seed": seed,
        "shard": shard,
        "complete": len(rows) == len(paths),
        "results": rows,
    }
    if rows or not paths:  # a run that is stopped at once leaves earlier files as they are
        write(csv_file, to_csv(rows))
        write(json_file, json.dumps(report, indent=1) + "\n")
        write(jsonl_file, "".join(json.dumps(row) + "\n" for row in rows))
    if not (quiet or csv_file or json_file or jsonl_file):
        for row in rows:
            answer = row["error"] or f"{row['label']}\t{row['probability']:.3f}"
            typer.echo(f"{row['image']}\t{answer}")
    if code in (Exit.TIME, Exit.INTERRUPTED):
        reason = "stopped at the time cap" if code == Exit.TIME else "interrupted"
        hint = "run it again to go on" if memory else "with --memory DIR the same command resumes"
        typer.echo(f"{reason}: {len(rows)} of {len(paths)} images; {hint}.", err=True)
    if failure is not None:
        typer.echo(f"{len(rows)} of {len(paths)} images were answered before this:", err=True)
        raise failure
    raise typer.Exit(code)


def find_images(sources: Sequence[str]) -> list[str]:
    """List the images of files, folders, globs and, for "-", of stdin.

    Raises
    ------
    InputValueError
        If there are none, or a glob matches nothing.
    """
    paths: list[str] = []
    for source in sources:
        if source == "-":
            paths += [line.strip() for line in sys.stdin if line.strip()]
        elif os.path.isdir(source):
            paths += list_images(source)
        elif glob.has_magic(source) and not os.path.exists(source):
            matches = sorted(glob.glob(source, recursive=True))
            if not matches:
                raise InputValueError(f"no file matches {source!r}.")
            paths += matches
        else:
            paths.append(source)
    if not paths:
        raise InputValueError("no images; give files, folders or globs, or - for a list on stdin.")
    return paths


def in_shard(paths: Sequence[str], shard: str | None) -> list[str]:
    """Return the i-th of n parts for a shard "i/n", with i from 1 to n: every n-th image."""
    if shard is None:
        return list(paths)
    number, slash, count = shard.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputValueError(f"shard {shard!r} must be i/n with i from 1 to n, such as 1/8.")
    return list(paths[int(number) - 1 :: int(count)])


def read_labels(labels: str | None, file: Path | None) -> list[str]:
    """Return the class names of --labels or --labels-file, without blanks around them."""
    if (labels is None) == (file is None):
        raise InputValueError("give the class names with either --labels or --labels-file.")
    if file is None:
        parts = (labels or "").split(",")
    elif file.is_file():
        try:
            parts = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputValueError(
                f"the labels file {str(file)!r} is not in UTF-8 ({error.reason} at byte "
                f"{error.start}); save it as UTF-8."
            ) from error
    else:
        raise InputValueError(f"the labels file {str(file)!r} does not exist.")
    return [part.strip() for part in parts if part.strip()]


def classify(
    clf: DiffusionClassifier,
    paths: Sequence[str],
    top: int,
    on_error: OnError = "raise",
    max_minutes: float | None = None,
) -> tuple[dict[int, dict[str, Any]], Exit, DiffusionClassifierError | None]:
    """Predict block by block, until all are done, an error, the end of the time or Ctrl-C.

    Returns
    -------
    dict of int to dict
        The record of each image that was answered or cannot be read, by its place in ``paths``.
    Exit
    DiffusionClassifierError or None
        The error that ended it.
    """
    records: dict[int, dict[str, Any]] = {}
    start, over = 0, threading.Event()
    failure: DiffusionClassifierError | None = None
    try:
        with _time_cap(max_minutes, over):
            for start in range(0, len(paths), BLOCK):
                block = list(paths[start : start + BLOCK])
                found = predictions(clf, block, top=top, on_error=on_error)
                records |= enumerate(map(_without_number, found), start)
    except (KeyboardInterrupt, DiffusionClassifierError) as stop:
        partial = getattr(stop, "partial", None)
        if partial is not None:
            done = enumerate(predictions(clf, partial, top=top, on_error="skip"), start)
            records |= {i: record for i, record in done if record["error"] is None}
        if isinstance(stop, KeyboardInterrupt):
            return records, Exit.TIME if over.is_set() else Exit.INTERRUPTED, None
        failure = stop
    skipped = any(record["error"] for record in records.values())
    code = Exit.FAILED if failure else Exit.SKIPPED if skipped else Exit.ANSWERED
    return records, code, failure


def _without_number(record: dict[str, Any]) -> dict[str, Any]:
    """Remove an image's number within its block from the reason; the row has its path."""
    if record["error"]:
        record["error"] = re.sub(r"^image \d+:? ", "", record["error"])
    return record


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


def shown(path: str) -> str:
    """Return a path as a text that every file can hold; bytes that are no UTF-8 are escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_writable(*files: Path | None) -> None:
    """Raise, before any work, unless files can be written."""
    for file in filter(None, files):
        if not file.parent.is_dir():
            raise MissingFileError(f"the folder of {str(file)!r} does not exist; make it first.")
        if not os.access(file.parent, os.W_OK):
            raise InputFileError(f"{str(file)!r} cannot be written; you have no permission.")
        check_regular(file)


def write(file: Path | None, text: str) -> None:
    """Write a file whole or not at all; None writes nothing."""
    if file is not None:
        with atomic_file(file) as target:
            target.write(text.encode("utf-8"))


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Format the best class of each record as CSV; spreadsheets read no cell as a formula."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        table.writerow([_safe(row[name]) for name in COLUMNS])
    return text.getvalue()


def _safe(cell: Any) -> Any:
    """Return a cell that starts no formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
