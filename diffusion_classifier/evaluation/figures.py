"""What records of answers add up to: how good, how sure and how costly they are.

All figures follow from one record per image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records.table import ErrorTable
from ..utils.intervals import Estimate, bootstrap, wilson
from ..utils.plain import finite
from .metrics import calibration_error, count_answers


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of an Evaluation, which says what its attributes are."""

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
    def calibration_error(self) -> float:
        """Expected calibration error over 15 bins of equal width.

        In small samples it is too large: chance moves the accuracy of each bin away from its
        confidence, and the error adds up absolute values. Samples of the bootstrap have this bias
        once more, and their interval would lie above the truth. Hence there is none.
        """
        return calibration_error(self.column("probability"), self.right)

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

    # ------------------------------------------------------------------ all of them

    def metrics(self) -> dict[str, Any]:
        """Return all figures: estimates as lists [value, low, high], others as numbers.

        Numbers that are not finite are None.

        Returns
        -------
        dict
            ``n``, ``n_skipped``, ``accuracy``, ``top``, ``top_accuracy``, ``log_loss``,
            ``brier``, ``calibration_error``, ``evaluations``, ``resolved``,
            ``seconds_per_image`` and ``per_class``, a list of dicts.
        """
        names = ("accuracy", "top_accuracy", "log_loss", "brier")
        return {
            "n": self.n,
            "n_skipped": self.n_skipped,
            "top": self.top,
            **{name: finite(getattr(self, name)) for name in names},
            "calibration_error": finite(self.calibration_error),
            "evaluations": finite(self.evaluations),
            "resolved": finite(self.resolved),
            "seconds_per_image": self.seconds_per_image,
            "per_class": [
                {name: finite(value) for name, value in row.items()} for row in self.per_class
            ],
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return the figures as text: pairs of a name and a value, with its interval if it has one.

        Returns
        -------
        list of tuple of str
        """
        skipped = f", {self.n_skipped:,} skipped" if self.n_skipped else ""
        lines = [
            ("images", f"{self.n:,} of {len(self.classes):,} classes{skipped}"),
            ("accuracy", as_share(self.accuracy)),
            (f"top-{self.top} accuracy", as_share(self.top_accuracy)),
            ("log-loss", as_number(self.log_loss, ".3f")),
            ("Brier score", as_number(self.brier, ".3f")),
            ("calibration error", f"{self.calibration_error:.3f} (too high for few images)"),
            ("resolved races", as_share(self.resolved)),
            ("evaluations per image", as_number(self.evaluations, ",.1f")),
        ]
        if self.seconds_per_image is not None:
            lines.append(("seconds per image", f"{self.seconds_per_image:.3g}"))
        return lines

    def summary(self) -> str:
        """Return the figures as a few lines of text.

        Returns
        -------
        str
        """
        lines = self.lines()
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def as_share(share: Estimate) -> str:
    """Write a share with its interval, in per cent."""
    value, low, high = (100 * number for number in share)
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def as_number(number: Estimate, form: str) -> str:
    """Write a number with its interval."""
    value, low, high = (format(part, form) for part in number)
    return f"{value} ({low} to {high})"
