"""What commands write: JSON of one schema, JSON lines, CSV, and the settings beside them.

The JSON of every command is one object with the keys of ``KEYS``. ``results`` holds one object per
image, ``summary`` the figures of the command.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from .._version import __version__
from ..errors import InputFileError, InputValueError, MissingFileError
from ..utils.files import atomic_file, check_regular
from ..utils.plain import finite

SCHEMA = 1
KEYS = (
    "schema", "command", "version", "model", "labels", "seed", "shard", "complete", "settings",
    "summary", "results",
)  # fmt: skip
COLUMNS = ("image", "label", "probability", "n_evaluations", "resolved", "runner_up", "error")
STDOUT = Path("-")


def document(
    command: str,
    settings: Mapping[str, Any],
    *,
    labels: Sequence[Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    results: Sequence[Mapping[str, Any]] = (),
    complete: bool = True,
) -> dict[str, Any]:
    """Make what ``--json`` writes, with the keys of ``KEYS``."""
    return {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "model": settings.get("model", "embedded"),
        "labels": None if labels is None else list(labels),
        "seed": settings.get("seed"),
        "shard": settings.get("shard"),
        "complete": complete,
        "settings": dict(settings),
        "summary": None if summary is None else dict(summary),
        "results": list(results),
    }


def check_writable(*files: Path | None) -> None:
    """Raise, before any work, unless files and the settings beside them can be written.

    Each needs a path of its own, and one at most may be "-".
    """
    taken = {os.path.realpath(settings_file(file)) for file in files if file and file != STDOUT}
    for file in filter(None, files):
        place = "-" if file == STDOUT else os.path.realpath(file)
        if place in taken:
            raise InputValueError(
                f"{str(file)!r} is the path of two outputs; give each a path of its own."
            )
        taken.add(place)
        if file == STDOUT:
            continue
        if not file.parent.is_dir():
            raise MissingFileError(f"the folder of {str(file)!r} does not exist; make it first.")
        if not os.access(file.parent, os.W_OK):
            raise InputFileError(f"{str(file)!r} cannot be written; you have no permission.")
        check_regular(file)
        check_regular(settings_file(file))


def write(file: Path | None, content: str | bytes) -> None:
    """Write a file whole or not at all; "-" is stdout, and None writes nothing."""
    if file is None:
        return
    if file == STDOUT:
        typer.echo(content, nl=False)
        return
    with atomic_file(file) as target:
        target.write(content if isinstance(content, bytes) else content.encode("utf-8"))


def to_json(value: Any) -> str:
    """Format as JSON, with null for NaN and infinity, which JSON lacks."""
    return json.dumps(finite(value), indent=1, allow_nan=False) + "\n"


def to_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format as JSON lines, one object per row, with null as in ``to_json``."""
    return "".join(json.dumps(finite(row), allow_nan=False) + "\n" for row in rows)


def settings_file(file: Path) -> Path:
    """Return the path of the settings beside a result: ``answers.settings.yaml``."""
    return file.with_name(f"{file.stem}.settings.yaml")


def write_settings(command: str, settings: Mapping[str, Any], *files: Path | None) -> None:
    """Write the settings of a run beside its results, as a file for ``--config``."""
    text = f"# diffusion-classifier {command} --config FILE, with version {__version__}\n"
    text += yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    for target in {settings_file(file) for file in files if file and file != STDOUT}:
        write(target, text)


def to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Format the best class of each record as CSV; spreadsheets read no cell as a formula."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        table.writerow([_safe(row[name]) for name in columns])
    return text.getvalue()


def _safe(cell: Any) -> Any:
    """Return a cell that starts no formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def shown(path: Any) -> Any:
    """Return a path as a text that every file can hold; bytes that are no UTF-8 are escaped."""
    if not isinstance(path, str):
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
