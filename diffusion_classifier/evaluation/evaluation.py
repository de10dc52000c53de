"""Evaluation: how good, how sure and how costly a classifier's answers for labelled images are.

All figures follow from one record per image, so that evaluations of parts can be joined, written
as JSON, read again and compared image by image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import InputValueError
from ..records.table import ErrorTable
from ..utils.display import short_repr
from ..utils.intervals import Estimate, bootstrap, wilson
from .metrics import calibration_error, count_answers

FORMAT = "diffusion_classifier evaluation"
SCORES = ("rank", "log_loss", "brier")


@dataclass(frozen=True, eq=False)
class Evaluation:
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
        Wall-clock time of all images together; None if errors were recorded before.
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

    records: list[dict[str, Any]]
    classes: list[Any]
    settings: dict[str, Any]
    network: dict[str, Any]
    top: int = 5
    seconds: float | None = None
    races: dict[int, ErrorTable] = field(default_factory=dict, repr=False)

    # ------------------------------------------------------------------ which images

    @cached_property
    def answered(self) -> list[dict[str, Any]]:
        """Records of the images that were not skipped."""
        return [record for record in self.records if record["error"] is None]

    @property
    def n(self) -> int:
        """Number of images that were answered."""
        return len(self.answered)

    @property
    def n_skipped(self) -> int:
        """Number of images that were skipped."""
        return len(self.records) - self.n

    @cached_property
    def wrong(self) -> list[int]:
        """Places in ``records`` of the wrong answers, the most confident first."""
        places = [i for i, record in enumerate(self.records) if (record["rank"] or 1) > 1]
        return sorted(places, key=lambda i: -self.records[i]["probability"])

    def column(self, name: str) -> NDArray[Any]:
        """Return one entry of all answered records, as an array of length ``n``.

        Parameters
        ----------
        name : str
            Key of the records.

        Returns
        -------
        ndarray of shape (n,)
        """
        return np.array([record[name] for record in self.answered])

    # ------------------------------------------------------------------ how good

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answered image was answered right, of shape (n,)."""
        return self.column("rank") == 1

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers, with Wilson's 95 % interval."""
        return wilson(int(self.right.sum()), self.n)

    @property
    def top_accuracy(self) -> Estimate:
        """Share of images with the true class among the first ``top``, with Wilson's interval."""
        return wilson(int((self.column("rank") <= self.top).sum()), self.n)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Number of answers, of shape (K, K); row: true class, column: predicted class."""
        place = {label: column for column, label in enumerate(self.classes)}
        pairs = [(place[r["true"]], place[r["label"]]) for r in self.answered]
        true, predicted = np.array(pairs, dtype=int).reshape(-1, 2).T
        return count_answers(true, predicted, len(self.classes))

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """One dict per class: ``label``, ``support``, ``precision`` and ``recall``.

        ``support`` is the number of its images, ``recall`` the share of them that were answered
        right, ``precision`` the share of the answers with this class that are right. Shares come
        with Wilson's interval, and have the value NaN where there is nothing to share.
        """
        counts = self.confusion
        hits, answers, supports = counts.diagonal(), counts.sum(0), counts.sum(1)
        columns = zip(self.classes, *map(list, (hits, answers, supports)), strict=True)
        return [
            {
                "label": label,
                "support": int(support),
                "precision": wilson(int(right), int(given)),
                "recall": wilson(int(right), int(support)),
            }
            for label, right, given, support in columns
        ]

    # ------------------------------------------------------------------ how sure

    @cached_property
    def log_loss(self) -> Estimate:
        """Mean log-loss in nats, with a bootstrap interval."""
        return bootstrap(np.mean, self.column("log_loss"))

    @cached_property
    def brier(self) -> Estimate:
        """Mean Brier score, from 0 (best) to 2, with a bootstrap interval."""
        return bootstrap(np.mean, self.column("brier"))

    @cached_property
    def calibration_error(self) -> Estimate:
        """Expected calibration error over 15 bins of equal width, with a bootstrap interval."""
        return bootstrap(calibration_error, self.column("probability"), self.right)

    # ------------------------------------------------------------------ how costly

    @cached_property
    def evaluations(self) -> Estimate:
        """Mean number of network rows of an image, with a bootstrap interval."""
        return bootstrap(np.mean, self.column("n_evaluations"))

    @property
    def resolved(self) -> Estimate:
        """Share of races that one class was left of, with Wilson's interval."""
        return wilson(int(self.column("resolved").sum()), self.n)

    @property
    def seconds_per_image(self) -> float | None:
        """Mean wall-clock time of an answered image; None if it was not measured."""
        return None if self.seconds is None else self.seconds / max(self.n, 1)

    # ------------------------------------------------------------------ as text, data and a page

    def metrics(self) -> dict[str, Any]:
        """Return all figures, as plain numbers and lists [value, low, high].

        Returns
        -------
        dict
            ``n``, ``n_skipped``, ``accuracy``, ``top``, ``top_accuracy``, ``log_loss``,
            ``brier``, ``calibration_error``, ``evaluations``, ``resolved``,
            ``seconds_per_image`` and ``per_class``, a list of dicts.
        """
        names = ("accuracy", "top_accuracy", "log_loss", "brier", "calibration_error")
        return {
            "n": self.n,
            "n_skipped": self.n_skipped,
            "top": self.top,
            **{name: _plain(getattr(self, name)) for name in names},
            "evaluations": _plain(self.evaluations),
            "resolved": _plain(self.resolved),
            "seconds_per_image": self.seconds_per_image,
            "per_class": [
                {name: _plain(value) for name, value in row.items()} for row in self.per_class
            ],
        }

    def summary(self) -> str:
        """Return the figures as a few lines of text.

        Returns
        -------
        str
        """
        skipped = f", {self.n_skipped:,} skipped" if self.n_skipped else ""
        lines = [
            ("images", f"{self.n:,} of {len(self.classes):,} classes{skipped}"),
            ("accuracy", _shares(self.accuracy)),
            (f"top-{self.top} accuracy", _shares(self.top_accuracy)),
            ("log-loss", _numbers(self.log_loss, ".3f")),
            ("Brier score", _numbers(self.brier, ".3f")),
            ("calibration error", _numbers(self.calibration_error, ".3f")),
            ("resolved races", _shares(self.resolved)),
            ("evaluations per image", _numbers(self.evaluations, ",.1f")),
        ]
        if self.seconds_per_image is not None:
            lines.append(("seconds per image", f"{self.seconds_per_image:.3g}"))
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but ``races`` in types that JSON supports.

        Returns
        -------
        dict
            ``format``, ``version``, ``metrics``, ``classes``, ``confusion`` (triples of true
            label, predicted label and count, for counts above 0), ``settings``, ``network``,
            ``seconds`` and ``images``, the records. :meth:`from_dict` reads it.
        """
        found = np.argwhere(self.confusion)
        return {
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make an Evaluation from what ``to_dict`` returned, possibly through JSON.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        Evaluation
            Without ``races``.

        Raises
        ------
        InputValueError
            If it is no evaluation, of another version, or an entry is missing.
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
            for number, record in enumerate(made.records):
                if missing := {"image", "true", "error", *SCORES} - record.keys():
                    raise InputValueError(f"images[{number}] has no {min(missing)!r}.")
        except (KeyError, TypeError, ValueError) as error:
            raise InputValueError(f"the evaluation is not complete: {error}") from error
        return made

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """Join evaluations of other images, such as those of several runs or machines.

        Parameters
        ----------
        parts : iterable of Evaluation
            Of the same classes.

        Returns
        -------
        Evaluation
            With the settings of the first part. Times add up.

        Raises
        ------
        InputValueError
            If there is none, or classes differ.
        """
        made = list(parts)
        if not made:
            raise InputValueError("there are no evaluations to join; give at least one.")
        for number, part in enumerate(made):
            if part.classes != made[0].classes:
                raise InputValueError(
                    f"parts[{number}] has classes {short_repr(part.classes)}, but parts[0] "
                    f"{short_repr(made[0].classes)}; join evaluations of the same classes."
                )
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


def _plain(value: Any) -> Any:
    """Return an estimate as a list, NaN as None."""
    if isinstance(value, Estimate):
        return [None if np.isnan(number) else float(number) for number in value]
    return value


def _shares(share: Estimate) -> str:
    """Write a share with its interval, in per cent."""
    value, low, high = (100 * number for number in share)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _numbers(number: Estimate, form: str) -> str:
    """Write a number with its interval."""
    value, low, high = (format(part, form) for part in number)
    return f"{value} ({low} to {high})"
