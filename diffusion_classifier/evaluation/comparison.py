r"""Comparison of two evaluations, image by image.

Of n images that both answered, let n_a be those that only a answers right, and n_b those that only
b does. Images that both answer alike say nothing about which is better, so that

    McNemar's test:   n_b ~ Binomial(n_a + n_b, 1/2)        if both are equally good,
    difference of accuracy:  (n_b - n_a) / n,               positive if b is better.

(Q. McNemar, "Note on the sampling error of the difference between correlated proportions", 1947;
here exact and two-sided.) The difference of accuracy has Newcombe's score interval for paired
shares, which has a width also if no image, or every image, is answered right by one alone. Other
intervals are those of the bootstrap over images, each with both of its answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ..errors import InputTypeError, InputValueError
from ..utils.display import short_repr
from ..utils.intervals import Estimate, bootstrap, newcombe
from ..utils.plain import finite
from .evaluation import Evaluation


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two evaluations of the same images. Made by :func:`compare`.

    Attributes
    ----------
    n : int
        Number of images that both answered.
    accuracy_a, accuracy_b : float
        Share of right answers of each, of these images.
    accuracy : Estimate
        Accuracy of b less that of a, with Newcombe's interval.
    n_only_a, n_only_b : int
        Number of images that only this one answers right.
    n_same : int
        Number of images with the same answer, right or wrong.
    p_value : float
        Of McNemar's exact test: the probability of at least this difference if both are equally
        good.
    log_loss : Estimate
        Mean log-loss of b less that of a, in nats.
    evaluations : Estimate
        Mean number of network rows of an image, b less a.
    evaluations_ratio : Estimate
        That of b divided by that of a; NaN or infinite if a took none.
    seconds_per_image_a, seconds_per_image_b : float or None
        Wall-clock time. Images share network calls, so one run has one time, without an interval.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.evaluation import compare, evaluate
    >>> scenes = load_scenes("test", n_samples=2)
    >>> clf = DiffusionClassifier(pruner="none", random_state=0).fit(None, ["red", "green", "blue"])
    >>> table = clf.errors(scenes.images)
    >>> y = clf.predict(table)
    >>> both = evaluate(clf, table, y), evaluate(clf, table.replay("racing"), y)
    >>> compare(*both).evaluations.value < 0
    True
    """

    n: int
    accuracy_a: float
    accuracy_b: float
    accuracy: Estimate
    n_only_a: int
    n_only_b: int
    n_same: int
    p_value: float
    log_loss: Estimate
    evaluations: Estimate
    evaluations_ratio: Estimate
    seconds_per_image_a: float | None
    seconds_per_image_b: float | None

    @property
    def seconds_ratio(self) -> float | None:
        """Time of b divided by that of a; None if one was not measured, or that of a is 0."""
        if not self.seconds_per_image_a or self.seconds_per_image_b is None:
            return None
        return self.seconds_per_image_b / self.seconds_per_image_a

    def summary(self) -> str:
        """Return the comparison as a few lines of text.

        Returns
        -------
        str
        """
        value, low, high = (100 * part for part in self.accuracy)
        lines = [
            ("images", f"{self.n:,}, {self.n_same:,} with the same answer"),
            (
                "accuracy",
                f"a {100 * self.accuracy_a:.1f} %, b {100 * self.accuracy_b:.1f} %: b - a "
                f"{value:+.1f} ({low:+.1f} to {high:+.1f}) points",
            ),
            (
                "right alone",
                f"a {self.n_only_a:,}, b {self.n_only_b:,}: McNemar p = {self.p_value:.3g}",
            ),
            ("log-loss", "b - a {:+.3f} ({:+.3f} to {:+.3f})".format(*self.log_loss)),
            (
                "evaluations",
                "b - a {:+,.1f} ({:+,.1f} to {:+,.1f}) per image, ".format(*self.evaluations)
                + "b / a {:.2f} ({:.2f} to {:.2f})".format(*self.evaluations_ratio),
            ),
        ]
        if self.seconds_ratio is not None:
            lines.append(
                (
                    "seconds",
                    f"a {self.seconds_per_image_a:.3g}, b {self.seconds_per_image_b:.3g} per "
                    f"image, b / a {self.seconds_ratio:.2f}",
                )
            )
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in types that JSON supports.

        Returns
        -------
        dict
            The attributes, estimates as lists [value, low, high]; ``format`` and ``version``.
            Numbers that are not finite are None.
        """
        return {
            "format": "diffusion_classifier comparison",
            "version": 1,
            **finite(vars(self)),
            "seconds_ratio": self.seconds_ratio,
        }


def compare(a: Evaluation, b: Evaluation, *, seed: int = 0) -> Comparison:
    """Compare two evaluations of the same images.

    Parameters
    ----------
    a, b : Evaluation
        Of the same images with the same labels, in any order. Images are paired by their names.
        Those that one of them skipped are left out. Classes may differ.
    seed : int, default=0
        Of the bootstrap, whose intervals all differences but that of accuracy have.

    Returns
    -------
    Comparison

    Raises
    ------
    InputTypeError
        If one is no Evaluation.
    InputValueError
        If images or their labels differ, a name occurs twice, or none was answered by both. The
        message names the first.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.evaluation import evaluate
    >>> scenes = load_scenes("test", n_samples=2)
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["red", "green", "blue"])
    >>> y = clf.predict(scenes.images)
    >>> found = evaluate(clf, scenes.images, y)
    >>> compare(found, found).n_same
    2
    """
    ours, theirs = _by_name("a", a), _by_name("b", b)
    for name in [*ours, *theirs]:
        for side, records in (("a", ours), ("b", theirs)):
            if name not in records:
                raise InputValueError(
                    f"image {short_repr(name)} is not in {side}; compare evaluations of the same "
                    "images."
                )
        if ours[name]["true"] != theirs[name]["true"]:
            raise InputValueError(
                f"image {short_repr(name)} has the label {short_repr(ours[name]['true'])} in a, "
                f"but {short_repr(theirs[name]['true'])} in b; compare evaluations of the same "
                "labels."
            )
    pairs = [
        (record, theirs[name])
        for name, record in ours.items()
        if record["error"] is None and theirs[name]["error"] is None
    ]
    if not pairs:
        raise InputValueError("no image was answered in both evaluations.")

    def both(name: str) -> Iterator[NDArray[Any]]:
        return (np.array([pair[side][name] for pair in pairs]) for side in (0, 1))

    right_a, right_b = (rank == 1 for rank in both("rank"))
    rows_a, rows_b = both("n_evaluations")
    loss_a, loss_b = both("log_loss")
    with np.errstate(invalid="ignore"):  # of two infinite losses, the difference is unknown
        loss = loss_b - loss_a
    n, only_a, only_b = len(pairs), int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n_both = int((right_a & right_b).sum())
    accuracy = newcombe(n_both, only_a, only_b, n - n_both - only_a - only_b)
    p_value = float(binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return Comparison(
        n=n,
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        accuracy=accuracy,
        n_only_a=only_a,
        n_only_b=only_b,
        n_same=sum(one["label"] == other["label"] for one, other in pairs),
        p_value=p_value,
        log_loss=bootstrap(np.mean, loss, seed=seed),
        evaluations=bootstrap(np.mean, rows_b - rows_a, seed=seed),
        evaluations_ratio=bootstrap(
            lambda first, second: np.divide(second.mean(), first.mean()),
            rows_a,
            rows_b,
            seed=seed,
        ),
        seconds_per_image_a=a.seconds_per_image,
        seconds_per_image_b=b.seconds_per_image,
    )


def _by_name(side: str, evaluation: Any) -> dict[Any, dict[str, Any]]:
    """Return an evaluation's records by the images' names."""
    if not isinstance(evaluation, Evaluation):
        raise InputTypeError(
            f"{side} is of type {type(evaluation).__name__}; give an Evaluation, such as "
            "evaluate(clf, X, y) returns it."
        )
    found: dict[Any, dict[str, Any]] = {}
    for record in evaluation.records:
        if record["image"] in found:
            raise InputValueError(
                f"{side} has two images named {short_repr(record['image'])}; give each a name of "
                "its own: evaluate(clf, X, y, names=...)."
            )
        found[record["image"]] = record
    return found
