"""``cost``: at most how many evaluations, and how long, before any is spent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...errors import InputValueError
from ...evaluation.suites import as_time
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
    Model,
    PromptOption,
    PrunerOption,
    Seed,
    Shard,
    make_classifier,
    settings_of,
)
from ..outputs import check_writable, document, to_json, write, write_settings
from ..shell import usage


def cost(
    ctx: typer.Context,
    images: Annotated[
        list[str] | None, typer.Argument(help="Files, folders or globs, to be counted.")
    ] = None,
    n_images: Annotated[
        int | None, typer.Option("--n-images", "-n", min=1, help="Number of images, without files.")
    ] = None,
    labels: Labels = None,
    labels_file: LabelsFile = None,
    model: Model = None,
    prompt: PromptOption = None,
    json_file: JsonFile = None,
    shard: Shard = None,
    pruner: PrunerOption = "racing",
    max_draws: MaxDraws = None,
    batch_size: BatchSizeOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    config: Config = None,
) -> None:
    """Estimate the maximum cost of predicting images, from a short measurement on this machine.

    Most races end long before the maximum.
    """
    with usage():
        if images and n_images is not None:
            raise InputValueError("give either images or their number, --n-images, not both.")
        n = n_images if n_images is not None else len(find_images(images or []))
        n = len(shard_of(n, shard))
        names = read_labels(labels, labels_file)
        check_writable(json_file)
    clf = make_classifier(ctx, names)
    evaluations, seconds = (0, 0.0) if n == 0 else clf.estimate_cost(n)
    found: dict[str, Any] = {"n_images": n, "n_classes": len(clf.classes_)}
    found |= {"max_evaluations": evaluations, "max_seconds": seconds}
    settings = settings_of(ctx)
    write(json_file, to_json(document("cost", settings, labels=names, summary=found)))
    write_settings("cost", settings, json_file)
    if json_file is None:
        typer.echo(
            f"{n:,} images, {len(clf.classes_):,} classes: at most {evaluations:,} evaluations, "
            f"{as_time(seconds)}"
        )
