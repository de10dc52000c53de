"""Evaluation: how good, how sure and how costly a classifier's answers for labelled images are.

All figures follow from one record per image, so that evaluations of parts can be joined, written
as JSON, read again and compared image by image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..errors import InputValueError
from ..utils.display import short_repr
from ..utils.plain import finite
from .figures import Figures
from .predictions import FIELDS
from .report import write_report

FORMAT = "diffusion_classifier evaluation"
SCORES = ("rank", "log_loss", "brier")
# Settings in which parts may differ: two change no answer, the network and the seed say the others.
_FREE = ("batch_size", "device", "backend", "random_state")


@dataclass(frozen=True, eq=False)
class Evaluation(Figures):
    """Answers of a classifier for labelled images, and what they add up to.

    Made by :func:`~diffusion_classifier.evaluation.evaluate`. Skipped images have a record, and
    count in no figure.

    Attributes
    ----------
    records : list of dict
        One per image, in order: those of :func:`predictions`, preceded by ``image``, its name or
        number, and ``true``, its label; then ``rank`` of the true class (1 if the answer is
        right), ``log_loss`` in nats, and ``brier``.
    classes : list of length K
        Class labels.
    settings : dict
        Parameters of the classifier and the version of the package.
    network : dict
        Identity of the network.
    top : int
        Answers within the first ``top`` classes count in ``top_accuracy``.
    seconds : float or None
        Wall-clock time of all images together; None if errors were recorded before, or may have
        been looked up in the classifier's ``memory``.
    races : dict of int to ErrorTable
        Errors of the most confident wrong answers, by the image's place in ``records``. They are
        not written to JSON.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.evaluation import evaluate
    >>> scenes = load_scenes("test", n_samples=4)
    >>> clf = DiffusionClassifier(prompts="a {} digit", random_state=0)
    >>> clf = clf.fit(None, ["red", "green", "blue", "yellow", "purple", "white", "black"])
    >>> found = evaluate(clf, scenes.images, scenes.color)
    >>> found.n, found.accuracy.value
    (4, 1.0)
    >>> found.confusion.sum().item()
    4
    """

    # ------------------------------------------------------------------ as data and a page

    def to_html(self, path: str | os.PathLike[str] | None = None, images: Any = None) -> str:
        """Return a report: one HTML file that needs no other, and no network.

        It holds the figures with their intervals, every class, which classes are confused,
        whether probabilities are true, the most confident wrong answers with their races, and the
        settings. Pictures need matplotlib; without it the report has tables only, and says so.

        Parameters
        ----------
        path : str or path-like, optional
            Where to write the report too. The folder must exist.
        images : images of length n, optional
            The X that was evaluated, to show those that were answered wrongly. Only these are
            read.

        Returns
        -------
        str
            The report.

        Raises
        ------
        InputValueError
            If ``images`` has another length.
        InputError
            If an image or the file cannot be read or written.
        """
        return write_report(self, path, images)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but ``races`` in types that JSON supports.

        Returns
        -------
        dict
            ``format``, ``version``, ``metrics``, ``classes``, ``confusion`` (triples of true
            label, predicted label and count, for counts above 0), ``settings``, ``network``,
            ``seconds`` and ``images``, the records. Numbers that are not finite are None.
            :meth:`from_dict` reads it.
        """
        found = np.argwhere(self.confusion)
        values = {
            "format": FORMAT,
            "version": 1,
            "metrics": self.metrics(),
            "classes": self.classes,
            "confusion": [
                [self.classes[true], self.classes[predicted], int(self.confusion[true, predicted])]
                for true, predicted in found.tolist()
            ],
            "settings": self.settings,
            "network": self.network,
            "seconds": self.seconds,
            "images": self.records,
        }
        plain: dict[str, Any] = finite(values)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make an Evaluation from what ``to_dict`` returned, possibly through JSON.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        Evaluation
            Without ``races``. A log-loss of None is infinite, as JSON holds no such number.

        Raises
        ------
        InputValueError
            If it is no evaluation, of another version, an entry is missing, or a label is none of
            the classes.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise InputValueError(
                f"{short_repr(values)} is no evaluation; give what Evaluation.to_dict returned."
            )
        if values.get("version") != 1:
            raise InputValueError(
                f"version={values.get('version')!r} of an evaluation is not supported, only 1; "
                "evaluate again."
            )
        try:
            made = cls(
                records=[dict(record) for record in values["images"]],
                classes=list(values["classes"]),
                settings=dict(values["settings"]),
                network=dict(values["network"]),
                top=int(values["metrics"]["top"]),
                seconds=values["seconds"],
            )
            classes = set(made.classes)
            for number, record in enumerate(made.records):
                _check_record(number, record, classes)
        except (KeyError, TypeError, ValueError) as error:
            raise InputValueError(f"the evaluation is not complete: {error}") from error
        return made

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """Join evaluations of other images, such as those of several runs or machines.

        Parameters
        ----------
        parts : iterable of Evaluation
            Of the same classes, network, settings and ``top``. Only what changes no answer may
            differ: ``batch_size`` and ``device``.

        Returns
        -------
        Evaluation
            With the settings of the first part. Times add up.

        Raises
        ------
        InputValueError
            If there is none, or they differ. The message names the first key that does.
        """
        made = list(parts)
        if not made:
            raise InputValueError("there are no evaluations to join; give at least one.")
        for number, part in enumerate(made):
            _check_alike(number, part, made[0])
        times = [part.seconds for part in made]
        starts = np.cumsum([0, *(len(part.records) for part in made)]).tolist()
        races = {
            start + image: race
            for start, part in zip(starts, made, strict=False)
            for image, race in part.races.items()
        }
        return replace(
            made[0],
            records=[record for part in made for record in part.records],
            seconds=None if None in times else sum(filter(None, times)),
            races=races,
        )


def _check_record(number: int, record: dict[str, Any], classes: set[Any]) -> None:
    """Raise unless a record that was read is complete; give back a log-loss that JSON lacks."""
    required = ("image", "true", *FIELDS, *SCORES)
    if missing := [name for name in required if name not in record]:
        raise InputValueError(f"images[{number}] has no {missing[0]!r}.")
    for name in ("true",) if record["error"] is not None else ("true", "label"):
        if record[name] not in classes:
            raise InputValueError(
                f"images[{number}] has {name}={short_repr(record[name])}, which is none of the "
                f"evaluation's classes {short_repr(sorted(classes))}."
            )
    if record["error"] is not None:
        return
    if record["log_loss"] is None:
        record["log_loss"] = np.inf
    for name in ("probability", "n_evaluations", "resolved", *SCORES):
        if not isinstance(record[name], int | float):
            raise InputValueError(
                f"images[{number}] has {name}={short_repr(record[name])}, which is no number."
            )


def _check_alike(number: int, part: Evaluation, first: Evaluation) -> None:
    """Raise unless a part is of the same classifier as the first."""
    for name, ours, theirs in (
        ("classes", first.classes, part.classes),
        ("top", first.top, part.top),
        *_entries("network", first.network, part.network),
        *_entries("settings", first.settings, part.settings),
    ):
        if ours != theirs:
            raise InputValueError(
                f"parts[{number}] has {name}={short_repr(theirs)}, but parts[0] "
                f"{short_repr(ours)}; join parts of one evaluation, and compare others."
            )


def _entries(
    name: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each entry of two dicts that counts, and both of its values."""
    for key in {**ours, **theirs}:
        if name == "network" or key not in _FREE:
            yield f"{name}[{key!r}]", ours.get(key), theirs.get(key)
