r"""Suites: published experiments as YAML files, read through a closed list of keys and types.

A suite says which images, which classes in which words, and how the paper searched: its stages are
even grids of timesteps, after each of which so many classes go on. The paper of most suites is Li
et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, arXiv 2303.16203. With
:math:`n_s` new draws and :math:`K_s` classes in stage s, an image costs

.. math:: \sum_s n_s \min(K, K_s)

rows through the network. Nothing in a file chooses code: all values are numbers and texts.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...errors import InputValueError
from ...noise import NoiseSchedule
from ...pruners import NoPruning, Pruner, StagedPruner
from ...samplers import EvenSampler
from ...utils.constraints import (
    MANY,
    Booleans,
    InstancesOf,
    Integers,
    Options,
    Reals,
    Sequences,
    Table,
    check_entries,
)
from ...utils.display import short_repr
from ...utils.files import read_regular

FOLDER = Path(__file__).parent
CLASSIFICATION, MATCHING = "classification", "matching"
N_TIMESTEPS = 1000  # of the published model
MOST_BYTES = 1_000_000  # of a suite

_TEXT = InstancesOf(str)
_TEXTS = Sequences(_TEXT)
_SUITE: Table = {
    "title": _TEXT,
    "task": Options(CLASSIFICATION, MATCHING),
    "data": InstancesOf(dict),
    "aliases": _TEXTS,
    "classes": InstancesOf(dict),
    "templates": _TEXTS,
    "published": InstancesOf(dict),
}
_DATA: Table = {
    "id": _TEXT,
    "revision": _TEXT | None,
    "split": _TEXT,
    "images": _TEXTS,
    "labels": _TEXTS,
    "n_images": Integers(1),
    "n_classes": Integers(2),
}
_CLASSES: Table = {"keep": _TEXTS, "rename": InstancesOf(dict)}
_PUBLISHED: Table = {
    "model": _TEXT,
    "figure": Reals(0, 100) | None,
    "source": _TEXT,
    "checked": Booleans(),
    "n_images": Integers(1) | None,
    "stages": Sequences(Integers(1, MANY)),
    "keep": Sequences(Integers(1)),
    "loss": Options("l1", "l2", "huber"),
    "image_size": Integers(1),
}


@dataclass(frozen=True)
class Published:
    """What a paper reports, and how its script searched.

    Attributes
    ----------
    model : str
        Hub id of the model.
    figure : float or None
        Accuracy in per cent, or the text score of a matching suite; None if the paper has none.
    source : str
        Where it stands.
    checked : bool
        Whether ``figure`` was compared with a table that its authors publish; summaries say so if
        it was not.
    n_images : int or None
        Images that were evaluated; None is all of them.
    stages, keep : tuple of int
        Size of each stage's grid, and the number of classes that go on after it.
    loss : str
    image_size : int
        In pixels.
    """

    model: str
    figure: float | None
    source: str
    checked: bool
    n_images: int | None
    stages: tuple[int, ...]
    keep: tuple[int, ...]
    loss: str
    image_size: int

    def sampler(self) -> EvenSampler:
        """Return the published timesteps."""
        return EvenSampler(stages=self.stages)

    def pruner(self) -> Pruner:
        """Return the published cuts. Grids do not nest, so they lie at sums of draws."""
        *cuts, total = np.cumsum(self._round_sizes).tolist()
        return StagedPruner(tuple(cuts), self.keep[:-1], total) if cuts else NoPruning(total)

    def rows(self, n_classes: int) -> int:
        """Return the number of rows through the network that an image takes.

        Parameters
        ----------
        n_classes : int

        Returns
        -------
        int
        """
        return self.pruner().max_evaluations(n_classes, round_sizes=self._round_sizes)

    @cached_property
    def _round_sizes(self) -> list[int]:
        schedule = NoiseSchedule.flow(N_TIMESTEPS)  # only its length matters
        return [len(draws) for draws in self.sampler().rounds(schedule, seed=0)]


@dataclass(frozen=True)
class Suite:
    """A published experiment: images, classes, prompts and the schedule of the paper.

    Made by :func:`load_suite`.

    Attributes
    ----------
    name : str
        Name of its file, without the suffix.
    title : str
    task : {"classification", "matching"}
    data_id, revision, split : str, str or None, str
        Hugging Face data set.
    images, labels : tuple of str
        Columns: one each, or two of images and two of captions for matching.
    n_images, n_classes : int
        Of the whole split. For matching, pairs of images and captions per pair.
    aliases : tuple of str
        Names of the data set in files of templates and class names.
    kept : tuple of str
        Classes that the experiment has, by the data set's names; () is all of them.
    renamed : dict of str to str
        Words for classes whose name in the data set says too little.
    templates : tuple of str
    published : Published

    Examples
    --------
    >>> from diffusion_classifier.evaluation.suites import load_suite
    >>> suite = load_suite("pets")
    >>> suite.n_classes, suite.published.stages, suite.published.rows(37)
    (37, (25, 250), 2050)
    """

    name: str
    title: str
    task: str
    data_id: str
    split: str
    images: tuple[str, ...]
    labels: tuple[str, ...]
    n_images: int
    n_classes: int
    published: Published
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = ()


def suite_names() -> list[str]:
    """Return the names of the suites in this package.

    Returns
    -------
    list of str

    Examples
    --------
    >>> suite_names()[:4]
    ['aircraft', 'cifar10', 'cifar100', 'flowers']
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_suite(suite: str | os.PathLike[str]) -> Suite:
    """Load a suite by its name, or from a YAML file of the same form.

    Parameters
    ----------
    suite : str or path-like
        A name of :func:`suite_names`, or the path of a ``.yaml`` file.

    Returns
    -------
    Suite

    Raises
    ------
    InputValueError
        If there is no such suite, or the file has unknown keys, lacks one or has a value that is
        not allowed. The message names the file and the key.
    InputFileError
        If the file cannot be read.
    """
    given = os.fspath(suite)
    is_file = given.endswith((".yaml", ".yml"))
    if not is_file and given not in suite_names():
        close = difflib.get_close_matches(given, suite_names(), 1)
        hint = f"do you mean {close[0]!r}? " if close else ""
        raise InputValueError(
            f"there is no suite {short_repr(given)}; {hint}Suites are "
            f"{', '.join(suite_names())}. A path must end with .yaml."
        )
    path = Path(given) if is_file else FOLDER / f"{given}.yaml"
    try:
        entries = yaml.safe_load(read_regular(path.resolve(), MOST_BYTES).decode("utf-8-sig"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputValueError(f"suite {str(path)!r} cannot be read as YAML: {reason}.") from error
    return _read(path.stem, f"suite {path.name!r}", entries)


def _read(name: str, where: str, entries: Any) -> Suite:
    """Make a suite from what a file holds."""
    check_entries(where, entries, _SUITE, ("task", "aliases", "classes", "templates"))
    task = entries.get("task", CLASSIFICATION)
    data, published = entries["data"], entries["published"]
    classes = entries.get("classes", {})
    check_entries(f"{where}: data", data, _DATA, ("revision",))
    check_entries(f"{where}: classes", classes, _CLASSES, tuple(_CLASSES))
    check_entries(f"{where}: published", published, _PUBLISHED)
    n_columns = 1 if task == CLASSIFICATION else 2
    for key in ("images", "labels"):
        if len(data[key]) != n_columns:
            raise InputValueError(
                f"{where}: data.{key} has {len(data[key])} columns; {task} needs {n_columns}."
            )
    templates = tuple(entries.get("templates", ()))
    if task == CLASSIFICATION and not templates:
        raise InputValueError(f"{where} has no 'templates'; give at least one.")
    renamed = classes.get("rename", {})
    for key, value in renamed.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InputValueError(
                f"{where}: classes.rename has {key!r}: {value!r}; both must be texts."
            )
    return Suite(
        name=name,
        title=entries["title"],
        task=task,
        data_id=data["id"],
        revision=data.get("revision"),
        split=data["split"],
        images=tuple(data["images"]),
        labels=tuple(data["labels"]),
        n_images=data["n_images"],
        n_classes=data["n_classes"],
        aliases=tuple(entries.get("aliases", ())),
        kept=tuple(classes.get("keep", ())),
        renamed=dict(renamed),
        templates=templates,
        published=_read_published(f"{where}: published", published),
    )


def _read_published(where: str, values: dict[str, Any]) -> Published:
    stages, keep = values["stages"], values["keep"]
    if not _increases(stages) or len(stages) != len(keep) or stages[-1] > N_TIMESTEPS:
        raise InputValueError(
            f"{where}: stages={stages} and keep={keep} must have the same length, and stages must "
            f"increase up to at most {N_TIMESTEPS}."
        )
    if keep[-1] != 1 or not _increases([-number for number in keep]):
        raise InputValueError(f"{where}: keep={keep} must decrease and end with 1.")
    numbers = {"stages": tuple(stages), "keep": tuple(keep)}
    return Published(**{**values, **numbers})


def _increases(numbers: Sequence[int]) -> bool:
    return bool(numbers) and list(numbers) == sorted(set(numbers))
