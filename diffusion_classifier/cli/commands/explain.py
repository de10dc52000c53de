"""``explain``: where in a picture one class beats another, as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputValueError
from ...images import read_images
from ...plotting import EvidenceMapDisplay
from ...plotting.style import import_pyplot
from ...utils.text import printable
from ..inputs import read_labels
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
    Quiet,
    Seed,
    make_classifier,
    settings_of,
)
from ..outputs import check_writable, document, shown, to_json, write, write_settings
from ..shell import usage

FORMATS = ("png", "pdf", "svg")


def explain(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(help="File of one image.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture: .png, .pdf or .svg.")],
    labels: Labels = None,
    labels_file: LabelsFile = None,
    model: Model = None,
    prompt: PromptOption = None,
    max_draws: MaxDraws = None,
    json_file: JsonFile = None,
    pruner: PrunerOption = "racing",
    batch_size: BatchSizeOption = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    config: Config = None,
    quiet: Quiet = False,
) -> None:
    """Draw where in a picture the first of two classes beats the second, in nats."""
    suffix = output.suffix.lower().removeprefix(".")
    with usage():
        names = read_labels(labels, labels_file)
        if len(names) != 2:
            raise InputValueError(f"explain compares two classes, but {len(names)} were given.")
        if suffix not in FORMATS:
            raise InputValueError(f"{str(output)!r} must end in one of .{', .'.join(FORMATS)}.")
        check_writable(output, json_file)
    import_pyplot()  # pictures need it: say so before anything is computed
    read_images([image]).check_files()  # before anything is loaded or computed
    clf = make_classifier(ctx, names)
    first, second = names
    display = EvidenceMapDisplay.from_estimator(clf, image, first, second)
    picture = io.BytesIO()
    display.figure_.savefig(picture, format=suffix, dpi=150, bbox_inches="tight")
    write(output, picture.getvalue())
    nats, settings = display.evidence.nats, settings_of(ctx)
    found = {
        "image": shown(image),
        "a": first,
        "b": second,
        "nats": float(nats.sum()),
        "map": nats.tolist(),
        "standard_error": display.evidence.standard_error.tolist(),
    }
    write(json_file, to_json(document("explain", settings, labels=names, summary=found)))
    write_settings("explain", settings, output, json_file)
    if not quiet and json_file is None:
        typer.echo(
            f"{first} over {second}: {found['nats']:+.3g} nats in all; see {printable(str(output))}"
        )
