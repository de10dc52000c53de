"""Options that several commands have, and ``--config``: the same options from a YAML file.

A file holds option names without dashes in front, such as ``labels: [cat, dog]``, and the names of
arguments, such as ``images``. The command line wins. Values are read as on the command line.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from ..classifier import DiffusionClassifier
from ..estimator.inputs import OnError
from ..pruners import PrunerName
from .outputs import shown
from .shell import usage

NOT_KEPT = ("config", "quiet", "help")
MONTH = 30 * 24 * 60  # minutes; timers cannot wait longer than 49 days everywhere


def read_config(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take defaults of the other options from a YAML file.

    Raises
    ------
    typer.BadParameter
        If it is no such file, or has an unknown key or a value that no option can have.
    """
    if file is None:
        return None
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(f"{str(file)!r} cannot be read as YAML: {reason}") from error
    if not isinstance(values, dict):
        raise typer.BadParameter(f"{str(file)!r} must hold lines such as 'labels: [cat, dog]'.")
    known = {key: param for param in ctx.command.params for key in _keys(param)}
    for name in ("config", "help"):
        known.pop(name, None)
    defaults = {}
    for key, value in values.items():
        param = known.get(str(key).replace("_", "-"))
        if param is None:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"do you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
            raise typer.BadParameter(f"{str(file)!r} has an unknown key {str(key)!r}; {hint}")
        if value is not None:
            defaults[param.name] = _as_typed(str(key), value, param)
    ctx.default_map = defaults
    return file


def _keys(param: Any) -> list[str]:
    """Return the names of an option or argument in a file."""
    names = [name.lstrip("-") for name in param.opts if name.startswith("--")]
    return names or [param.name]


def _as_typed(key: str, value: Any, param: Any) -> Any:
    """Return a value as the shell would give it: texts, lists of texts, or a flag."""
    if getattr(param, "is_flag", False):
        if isinstance(value, bool):
            return value
        raise typer.BadParameter(f"{key}: {value!r} must be true or false.")
    items = value if isinstance(value, list) else [value]
    for item in items:
        # YAML reads 007 as 7, and yes as true: a class name has to be a text.
        allowed = str if key == "labels" else str | int | float
        if isinstance(item, bool) or not isinstance(item, allowed):
            kind = "text" if key == "labels" else "text or number"
            raise typer.BadParameter(f"{key}: {item!r} is no {kind}; put it in quotes.")
    texts = [str(item) for item in items]
    if getattr(param, "multiple", False) or param.nargs == -1:
        return texts
    if not isinstance(value, list):
        return texts[0]
    if key != "labels":
        raise typer.BadParameter(f"{key}: {value!r} must be one value, not a list.")
    return join_labels(texts)


def join_labels(labels: list[str]) -> str:
    """Join class names as ``--labels`` reads them."""

    def quoted(label: str) -> str:
        special = set('",') & set(label) or len(label.splitlines()) > 1
        return '"' + label.replace('"', '""') + '"' if special else label

    return ",".join(map(quoted, labels))


def settings_of(ctx: typer.Context) -> dict[str, Any]:
    """Return the settings of this run, by the names of options, without those that are not set."""
    found: dict[str, Any] = {}
    for param in ctx.command.params:
        name, value = _keys(param)[0], ctx.params.get(str(param.name))
        if name in NOT_KEPT or value is None or value == [] or value == ():
            continue
        if isinstance(value, list | tuple):
            found[name] = [shown(str(item)) for item in value]
        elif isinstance(value, bool | int | float):
            found[name] = value
        else:
            found[name] = shown(str(value))
    return found


Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", "-l", help='Class names, separated by commas: cat,dog,"salt, pepper".'
    ),
]
LabelsFile = Annotated[
    Path | None, typer.Option(help="File with one class name per line, instead of --labels.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Folder, safetensors file or Hub id of a diffusers model. Default: the small model.",
    ),
]
PromptOption = Annotated[
    list[str] | None, typer.Option(help='Template such as "a photo of a {}"; may be repeated.')
]
Top = Annotated[int, typer.Option(min=1, help="Classes per image in JSON.")]
Memory = Annotated[
    str | None,
    typer.Option(help="Folder that keeps what was computed; the same command then resumes."),
]
OnErrorOption = Annotated[
    OnError, typer.Option(help="What to do about images that cannot be read.")
]
Shard = Annotated[
    str | None, typer.Option(help="i/n: only the i-th of n parts, for n processes or machines.")
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        min=0, max=MONTH, help="Stop after this time, at most 30 days, with the answers so far."
    ),
]
PrunerOption = Annotated[PrunerName, typer.Option(help="How classes that lose are dropped.")]
MaxDraws = Annotated[
    int | None, typer.Option(min=1, help="Budget of draws per image and class. Default: 200.")
]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Rows per network call. Default: automatic.")
]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", "mps".')]
Dtype = Annotated[str, typer.Option(help='"auto", "float32", "float16" or "bfloat16".')]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no answers.")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with any of these options; the command line wins.",
        callback=read_config,
        is_eager=True,
    ),
]
SuiteOption = Annotated[
    str | None,
    typer.Option(
        help="Published experiment, instead of a folder: cifar10, pets, ... or a YAML file."
    ),
]
Published = Annotated[
    bool, typer.Option("--published", help="With --suite: search as the paper does.")
]
DataOption = Annotated[
    str | None,
    typer.Option(help="Folder of the suite's images, or a saved data set, instead of the Hub."),
]
Templates = Annotated[
    Path | None, typer.Option(help="With --suite: templates, in CLIP_benchmark's JSON form.")
]
Classnames = Annotated[
    Path | None, typer.Option(help="With --suite: class names, in CLIP_benchmark's JSON form.")
]
Send = Annotated[
    Path | None, typer.Option(help="With --suite: JSON of the figures to send back, without names.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write a JSON file; - prints it.")]


def make_classifier(ctx: typer.Context, labels: list[str]) -> DiffusionClassifier:
    """Make and fit the classifier that the options of a command describe."""
    with usage():
        return make_unfitted(ctx).fit(None, labels)


def make_unfitted(ctx: typer.Context) -> DiffusionClassifier:
    """Make the classifier that the options of a command describe."""
    given = ctx.params
    with usage():
        clf = DiffusionClassifier(
            given["model"],
            prompts=given["prompt"] or None,
            pruner=given["pruner"],
            batch_size=given.get("batch_size") or "auto",
            device=given["device"],
            dtype=given["dtype"],
            memory=given.get("memory"),
            random_state=given["seed"],
            verbose=0,
        )
        if given.get("max_draws") is not None:
            clf.set_params(pruner__max_draws=given["max_draws"])
        return clf
