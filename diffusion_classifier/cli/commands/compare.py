"""``compare``: two evaluations of the same images, image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import InputFileError, InputValueError, MissingFileError
from ...evaluation import Evaluation
from ...evaluation import compare as compare_evaluations
from ..options import Config, JsonFile, Quiet, settings_of
from ..outputs import check_writable, document, to_json, write, write_settings
from ..shell import usage

PLACE = "JSON file of evaluate, or a folder of those of its shards."


def compare(
    ctx: typer.Context,
    a: Annotated[Path, typer.Argument(help=PLACE)],
    b: Annotated[Path, typer.Argument(help=PLACE)],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    json_file: JsonFile = None,
    config: Config = None,
    quiet: Quiet = False,
) -> None:
    """Compare two runs on the same images: McNemar's test, differences with intervals."""
    with usage():
        check_writable(json_file)
        found = compare_evaluations(read_evaluation(a), read_evaluation(b), seed=seed)
    settings = settings_of(ctx)
    result = document("compare", settings, summary=found.to_dict())
    write(json_file, to_json(result))
    write_settings("compare", settings, json_file)
    if not quiet and json_file is None:
        typer.echo(found.summary())


def read_evaluation(place: Path) -> Evaluation:
    """Read what ``evaluate --json`` wrote; the parts in a folder are joined.

    Raises
    ------
    InputValueError
        If a file holds no evaluation.
    MissingFileError, InputFileError
        If there is no file, or it cannot be read.
    """
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        raise MissingFileError(
            f"the folder {str(place)!r} has no .json files; give one of evaluate."
        )
    return Evaluation.concatenate(_read(file) for file in files)


def _read(file: Path) -> Evaluation:
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{str(file)!r} does not exist.") from error
    except OSError as error:
        raise InputFileError(f"{str(file)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputValueError(f"{str(file)!r} is no JSON: {error}") from error
    if not isinstance(values, dict) or values.get("command") != "evaluate":
        raise InputValueError(f"{str(file)!r} was not written by evaluate --json.")
    try:
        return Evaluation.from_dict({**values["summary"], "images": values["results"]})
    except (InputValueError, KeyError, TypeError) as error:
        raise InputValueError(f"{str(file)!r}: {error}") from error
