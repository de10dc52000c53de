"""A suite with its images and its classifier, ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...classifier import DiffusionClassifier
from ...estimator.cost import Cost
from ...images import as_images
from ...matching import match_scores
from .suite import MATCHING, Suite


@dataclass(frozen=True)
class Prepared:
    """A suite that is ready to run.

    Attributes
    ----------
    suite : Suite
    classifier : DiffusionClassifier
        Fitted, or for matching with the parameters that count.
    data : SuiteImages or datasets.Dataset
        Images to answer, or rows of a matching suite.
    published : bool
        Whether it searches as the paper does.
    limit : int or None
    seed : int
    expected : Cost
        At most what it costs; of a published schedule, exactly.
    """

    suite: Suite
    classifier: DiffusionClassifier
    data: Any
    published: bool
    limit: int | None
    seed: int
    expected: Cost

    def plan(self) -> str:
        """Return one line on what is about to be done, and how long it takes."""
        n = len(self.data) if self.suite.task == MATCHING else len(self.data.labels)
        kind = "published schedule" if self.published else "default race"
        rows, seconds = self.expected
        return (
            f"{self.suite.title}: {n:,} images, {kind}: at most {rows:,} evaluations, "
            f"{as_time(seconds)} on this machine"
        )

    def matches(self) -> Iterator[NDArray[np.float64]]:
        """Yield the scores of each pair's two images and two captions, of shape (2, 2)."""
        for row in self.data:
            options = {
                name: self.classifier.get_params(deep=False)[name]
                for name in ("batch_size", "dtype", "device", "image_size", "loss", "weighting",
                             "resize", "random_state", "memory")
            }  # fmt: skip
            yield match_scores(
                as_images([row[name] for name in self.suite.images]),
                [row[name] for name in self.suite.labels],
                self.classifier.backend,
                max_draws=self.suite.published.stages[-1],
                sampler=self.suite.published.sampler() if self.published else None,
                verbose=0,
                **options,
            )


def as_time(seconds: float) -> str:
    """Format a time in its largest fitting unit.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str

    Examples
    --------
    >>> as_time(0.5), as_time(150), as_time(9000), as_time(200_000)
    ('0.5 seconds', '2.5 minutes', '2.5 hours', '2.3 days')
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
