"""``predict``: the class of each image, printed or as CSV, JSON or JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...evaluation import predictions
from ...images import read_images
from ...utils.text import printable
from ..fitted import ClassifierOption, described, load_fitted
from ..inputs import find_images, read_labels, shard_of
from ..options import (
    BatchSizeOption,
    Config,
    Device,
    Dtype,
    JsonFile,
    Labels,
    LabelsFile,
    MaxDraws,
    MaxMinutes,
    Memory,
    Model,
    OnErrorOption,
    PromptOption,
    PrunerOption,
    Quiet,
    Seed,
    Shard,
    Top,
    make_classifier,
    settings_of,
)
from ..outputs import (
    check_writable,
    document,
    shown,
    to_csv,
    to_json,
    to_json_lines,
    write,
    write_settings,
)
from ..running import finish, in_blocks, numbered, progress, without_numbers
from ..shell import usage


def predict(
    ctx: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or globs; - reads a list of files from stdin."),
    ] = None,
    labels: Labels = None,
    labels_file: LabelsFile = None,
    classifier: ClassifierOption = None,
    model: Model = None,
    prompt: PromptOption = None,
    top: Top = 5,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file.")] = None,
    json_file: JsonFile = None,
    jsonl_file: Annotated[
        Path | None, typer.Option("--jsonl", help="Write one JSON object per line and image.")
    ] = None,
    memory: Memory = None,
    on_error: OnErrorOption = "raise",
    shard: Shard = None,
    max_minutes: MaxMinutes = None,
    pruner: PrunerOption = "racing",
    max_draws: MaxDraws = None,
    batch_size: BatchSizeOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    config: Config = None,
    quiet: Quiet = False,
) -> None:
    """Classify images: print one line per image, or write CSV, JSON or JSON lines."""
    files = csv_file, json_file, jsonl_file
    with usage():
        paths = find_images(images or [])
        places = shard_of(len(paths), shard)
        paths = [paths[place] for place in places]
        names = [] if classifier is not None else read_labels(labels, labels_file)
        check_writable(*files)
    if on_error == "raise" and paths:
        with numbered(places):
            read_images(paths).check_files()  # before anything is loaded or computed
    clf = make_classifier(ctx, names) if classifier is None else load_fitted(ctx)

    def work(block: slice) -> dict[int, dict[str, Any]]:
        with numbered(places[block]):
            found = predictions(clf, paths[block], top=top, on_error=on_error)
        without_numbers(found)
        return dict(enumerate(found, block.start))

    def rescue(block: slice, partial: Any) -> dict[int, dict[str, Any]]:
        done = enumerate(predictions(clf, partial, top=top, on_error="skip"), block.start)
        return {place: record for place, record in done if record["error"] is None}

    with progress(clf, len(paths), quiet):
        outcome = in_blocks(len(paths), work, rescue, max_minutes)
    records = {place: record for part in outcome.parts for place, record in part.items()}
    rows = [{"image": shown(paths[place]), **record} for place, record in sorted(records.items())]
    settings, complete = settings_of(ctx), len(rows) == len(paths)
    if rows or not paths:  # a run that is stopped at once leaves earlier files as they are
        labels_of = names if classifier is None else clf.classes_.tolist()
        result = document("predict", settings, labels=labels_of, results=rows, complete=complete)
        if classifier is not None:
            result |= described(clf)
        write(csv_file, to_csv(rows))
        write(json_file, to_json(result))
        write(jsonl_file, to_json_lines(rows))
        write_settings("predict", settings, *files)
    if not (quiet or any(files)):
        for row in rows:
            label, reason = printable(str(row["label"])), printable(row["error"] or "")
            answer = reason or f"{label}\t{row['probability']:.3f}"
            typer.echo(f"{printable(row['image'])}\t{answer}")
    skipped = any(row["error"] for row in rows)
    finish(outcome, len(rows), len(paths), memory, skipped)
