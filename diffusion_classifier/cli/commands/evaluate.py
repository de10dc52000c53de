"""``evaluate``: how good, how sure and how costly answers for labelled images are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import AllSkippedError, DiffusionClassifierError, InputValueError, NetworkError
from ...evaluation import Evaluation, no_prediction
from ...evaluation import evaluate as evaluate_classifier
from ...images import read_images
from ..inputs import Labelled, limited, read_labelled, shard_of
from ..options import (
    BatchSizeOption,
    Classnames,
    Config,
    DataOption,
    Device,
    Dtype,
    JsonFile,
    MaxDraws,
    MaxMinutes,
    Memory,
    Model,
    OnErrorOption,
    PromptOption,
    PrunerOption,
    Published,
    Quiet,
    Seed,
    Send,
    Shard,
    SuiteOption,
    Templates,
    Top,
    make_classifier,
    settings_of,
)
from ..outputs import (
    COLUMNS,
    STDOUT,
    check_writable,
    document,
    shown,
    to_csv,
    to_json,
    write,
    write_settings,
)
from ..running import finish, in_blocks, numbered, progress, without_numbers
from ..shell import usage
from .suites import SuiteFiles, run_suite


def evaluate(
    ctx: typer.Context,
    folder: Annotated[
        str | None, typer.Argument(help="Folder with one sub-folder of images per class.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Hugging Face data set, by its name or folder, instead of a folder."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data set. Default: test.")] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of images. Default: the only one.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of labels. Default: the only one with class names.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many images, the same at each call, by chance."),
    ] = None,
    suite: SuiteOption = None,
    published: Published = False,
    data: DataOption = None,
    templates: Templates = None,
    classnames: Classnames = None,
    send: Send = None,
    report: Annotated[Path | None, typer.Option(help="Write a report as a HTML page.")] = None,
    model: Model = None,
    prompt: PromptOption = None,
    top: Top = 5,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a CSV file, one line per image.")
    ] = None,
    json_file: JsonFile = None,
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
    """Measure the answers for labelled images: accuracy, calibration and cost, with intervals."""
    only = {"data": data, "published": published, "templates": templates,
            "classnames": classnames, "send": send}  # fmt: skip
    others = {"a folder": folder, "--dataset": dataset, "--split": split, "--shard": shard,
              "--image-column": image_column, "--label-column": label_column,
              "--prompt": prompt, "--csv": csv_file,
              "--on-error skip": on_error == "skip"}  # fmt: skip
    with usage():
        if suite is not None and (name := next((n for n in others if others[n]), None)):
            raise InputValueError(f"--suite and {name} exclude each other; leave one out.")
        if suite is None and (name := next((n for n in only if only[n]), None)):
            raise InputValueError(f"--{name} needs --suite NAME.")
    if suite is not None:
        run_suite(ctx, suite, SuiteFiles(report, json_file, send))
        return
    files = csv_file, json_file, report
    with usage():
        check_writable(*files)
        everything = read_labelled(folder, dataset, split, (image_column, label_column))
        places = limited(len(everything.labels), limit)
        places = [places[place] for place in shard_of(len(places), shard)]
        if not places:
            raise InputValueError(f"shard {shard!r} has no images; take fewer shards.")
        images, labels, names, classes = everything.chosen(places)
    if on_error == "raise" and isinstance(images, list):
        with numbered(places):
            read_images(images).check_files()  # before anything is loaded or computed
    clf = make_classifier(ctx, classes)
    names = [shown(name) for name in names]
    # A lazy column numbers the images that it cannot decode by their places in the whole already.
    kind = DiffusionClassifierError if isinstance(images, list) else NetworkError
    kept: dict[str, Any] = {"top": min(top, len(classes))}

    def work(block: slice) -> Evaluation | list[dict[str, Any]]:
        options = {"names": names[block], "on_error": on_error, **kept}
        try:
            with numbered(places[block], kind):
                found = evaluate_classifier(clf, images[block], labels[block], **options)
            without_numbers(found.records)
            return found
        except AllSkippedError as error:
            unknown = {"rank": None, "log_loss": None, "brier": None}
            rows = zip(names[block], labels[block].tolist(), error.skipped, strict=True)
            records = [
                {"image": name, "true": true, **no_prediction(reason), **unknown}
                for name, true, (_, reason) in rows
            ]
            without_numbers(records)
            return records

    def rescue(block: slice, partial: Any) -> Evaluation | list[dict[str, Any]]:
        done = slice(block.start, block.start + len(partial))
        options = {"names": names[done], "on_error": "skip", **kept}
        found = evaluate_classifier(clf, partial, labels[done], **options)
        return replace(found, records=found.answered, races={})

    with progress(clf, len(places), quiet):
        outcome = in_blocks(len(places), work, rescue, max_minutes)
    found = _joined(outcome.parts)
    n_done = 0 if found is None else len(found.records)
    if found is not None:
        place_of = {name: place for place, name in enumerate(names)}
        order = [place_of[record["image"]] for record in found.records]
        shown_images = Labelled(images, labels, names, classes).chosen(order).images
        _write(ctx, found, files, shown_images, complete=n_done == len(places))
        if not quiet and json_file is None and STDOUT not in files:
            typer.echo(found.summary())
    skipped = found is None or found.n_skipped > 0
    finish(outcome, n_done, len(places), memory, skipped)


def _joined(parts: list[Evaluation | list[dict[str, Any]]]) -> Evaluation | None:
    """Join the blocks, some of which have records of skipped images only; None without answers."""
    whole = [part for part in parts if isinstance(part, Evaluation)]
    if not whole:
        return None
    blank = replace(whole[0], records=[], races={}, seconds=0.0)
    return Evaluation.concatenate(
        part if isinstance(part, Evaluation) else replace(blank, records=part) for part in parts
    )


def _write(
    ctx: typer.Context,
    found: Evaluation,
    files: tuple[Path | None, Path | None, Path | None],
    images: Any,
    complete: bool,
) -> None:
    """Write CSV, JSON and the report of an evaluation."""
    csv_file, json_file, report = files
    settings, values = settings_of(ctx), found.to_dict()
    result = document(
        "evaluate",
        settings,
        labels=found.classes,
        results=values.pop("images"),
        summary=values,
        complete=complete,
    )
    write(json_file, to_json(result))
    write(csv_file, to_csv(found.records, ("image", "true", *COLUMNS[1:])))
    if report is not None:
        write(report, found.to_html(images=images))
    write_settings("evaluate", settings, *files)
