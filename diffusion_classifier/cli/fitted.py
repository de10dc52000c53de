"""``--classifier``: predict with a classifier that was saved to a folder or pushed to the Hub.

It holds its classes, prompts, seed and everything learned, so options that would set them again are
refused. ``--model`` gives it its network, if that cannot be found by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..backends.loading.origin import HUB_ID
from ..classifier import DiffusionClassifier
from ..errors import InputValueError, MissingFileError
from ..evaluation.settings import identity_of
from ..hub import from_hub
from .shell import usage

HELD = ("labels", "labels_file", "prompt", "pruner", "max_draws", "device", "dtype", "seed")

ClassifierOption = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="Fitted classifier instead of labels: a folder, or a Hub id, owner/name[@revision].",
    ),
]


def load_fitted(ctx: typer.Context) -> DiffusionClassifier:
    """Load the classifier that ``--classifier`` names; forget the options that it replaces."""
    given = ctx.params
    with usage():
        _check_options(ctx)
        clf = _load(given["classifier"], given["model"])
    if given["batch_size"] is not None:
        clf.batch_size = given["batch_size"]
    clf.memory, clf.verbose = given["memory"], 0
    given.update(dict.fromkeys(HELD))
    return clf


def _check_options(ctx: typer.Context) -> None:
    """Raise if an option was given that the classifier holds itself."""
    for name in HELD:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP"):
            raise InputValueError(
                f"--classifier holds what --{name.replace('_', '-')} would set; leave one of them "
                "out."
            )


def _load(name: str, model: str | None) -> DiffusionClassifier:
    if Path(name).is_dir():
        return DiffusionClassifier.load(name, backend=model)
    repo_id, _, revision = name.partition("@")
    if not HUB_ID.fullmatch(repo_id):
        raise MissingFileError(
            f"no folder {name!r}; give a folder that DiffusionClassifier.save wrote, or a Hub id, "
            "such as owner/name."
        )
    return from_hub(repo_id, revision=revision or None, backend=model)


def described(clf: DiffusionClassifier) -> dict[str, Any]:
    """Return what ``--json`` says of a loaded classifier in place of the options."""
    seed = clf.get_params(deep=False)["random_state"]
    return {
        "model": identity_of(clf).get("name"),
        "seed": seed if isinstance(seed, int) else None,
    }
