r"""What a suite found: our figure with its interval beside the published one, and a report to send.

Winoground's pairs have images :math:`i_0, i_1` and captions :math:`c_0, c_1`, and scores s(c, i).
The *text score* counts pairs whose captions are both found for their image,
:math:`s(c_0, i_0) > s(c_1, i_0)` and :math:`s(c_1, i_1) > s(c_0, i_1)`, the *image score* those
whose images are both found for their caption, and the *group score* those with both.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from ..._version import __version__
from ...backends.loading.origin import HUB_ID
from ...shortlist import ClipShortlist
from ...utils.files import atomic_file
from ...utils.intervals import Estimate, wilson
from ...utils.plain import finite
from ..evaluation import Evaluation
from ..figures import as_share
from ..settings import identity_of, settings_of
from .prepared import Prepared
from .suite import Published

FORMAT = "diffusion_classifier suite"
LIBRARIES = ("torch", "diffusers", "transformers")
# Settings that may hold paths; the network's identity says which model it was.
_PRIVATE = ("backend",)


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """Answers for a suite's images, beside the published accuracy.

    Attributes
    ----------
    run : Prepared
    evaluation : Evaluation
    """

    run: Prepared
    evaluation: Evaluation

    @property
    def published(self) -> Published:
        """What the paper reports."""
        return self.run.suite.published

    @property
    def figure(self) -> Estimate:
        """Our accuracy, with Wilson's 95 % interval."""
        return self.evaluation.accuracy

    @property
    def figures(self) -> dict[str, Any]:
        """All figures, as JSON holds them."""
        return self.evaluation.metrics()

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.evaluation.classes)

    def summary(self) -> str:
        """Return our figures and the published one, as a few lines of text.

        Returns
        -------
        str
        """
        return "\n".join([self.evaluation.summary(), *_beside(self.run, self.figure, self.classes)])

    def to_html(self, path: str | os.PathLike[str] | None = None, images: Any = None) -> str:
        """Return the report of the evaluation; see ``Evaluation.to_html``.

        Parameters
        ----------
        path : str or path-like, optional
        images : images of length n, optional
            By default those of the suite.

        Returns
        -------
        str
        """
        shown = self.run.data.images if images is None else images
        return self.evaluation.to_html(path, images=shown)

    def to_dict(self) -> dict[str, Any]:
        """Return what is worth sending back: figures, settings, identity and versions.

        Returns
        -------
        dict
            In types that JSON supports, without images and names of files.
        """
        settings = self.evaluation.settings
        return _report(self.run, self.figures, settings, self.evaluation.network)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` to a file.

        Parameters
        ----------
        path : str or path-like
        """
        _write(self.to_dict(), path)


@dataclass(frozen=True, eq=False)
class MatchingResult:
    """Scores of Winoground's pairs, beside the published text score.

    Attributes
    ----------
    run : Prepared
    scores : list of ndarray of shape (2, 2)
        One per pair; row: image, column: caption.
    """

    run: Prepared
    scores: Sequence[NDArray[np.float64]]

    @property
    def published(self) -> Published:
        """What the paper reports."""
        return self.run.suite.published

    @property
    def text(self) -> Estimate:
        """Text score, with Wilson's 95 % interval."""
        return _share(_finds_text(pair) for pair in self.scores)

    @property
    def image(self) -> Estimate:
        """Image score. Some images are easier whatever the caption, which lowers it."""
        return _share(_finds_text(pair.T) for pair in self.scores)

    @property
    def group(self) -> Estimate:
        """Group score."""
        return _share(_finds_text(pair) and _finds_text(pair.T) for pair in self.scores)

    @property
    def figure(self) -> Estimate:
        """The text score."""
        return self.text

    @property
    def figures(self) -> dict[str, Any]:
        """All figures, as JSON holds them."""
        names = ("text", "image", "group")
        return {"n": len(self.scores), **{name: finite(getattr(self, name)) for name in names}}

    def summary(self) -> str:
        """Return our scores and the published one, as a few lines of text.

        Returns
        -------
        str
        """
        lines = [f"{'pairs':<22} {len(self.scores):,}"]
        for name in ("text", "image", "group"):
            lines.append(f"{name + ' score':<22} {as_share(getattr(self, name))}")
        return "\n".join([*lines, *_beside(self.run, self.figure, 2)])

    def to_dict(self) -> dict[str, Any]:
        """Return what is worth sending back, as ``SuiteResult.to_dict``.

        Returns
        -------
        dict
        """
        clf = self.run.classifier
        fitted = clf if hasattr(clf, "backend_") else clf.fit(None, list(self.run.suite.labels))
        settings = settings_of(fitted)
        settings.pop("prompts", None)
        return _report(self.run, self.figures, settings, identity_of(fitted))

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` to a file.

        Parameters
        ----------
        path : str or path-like
        """
        _write(self.to_dict(), path)


def _beside(run: Prepared, ours: Estimate, n_classes: int) -> list[str]:
    """Say what was published, and whether our interval has it."""
    paper, suite = run.suite.published, run.suite
    if paper.figure is None:
        return [f"{'published':<22} no figure: {paper.source}"]
    inside = ours.low <= paper.figure / 100 <= ours.high
    words = f"{'within' if inside else 'outside'} our interval"
    if n_classes != suite.n_classes:
        words = f"not comparable: {n_classes} classes here, {suite.n_classes} in the paper"
    source = paper.source if paper.checked else f"{paper.source}; not checked"
    return [f"{'published':<22} {paper.figure:.1f} % ({source}), {words}"]


def _report(
    run: Prepared, figures: dict[str, Any], settings: dict[str, Any], network: dict[str, Any]
) -> dict[str, Any]:
    paper = run.suite.published
    # A folder's path is nobody's business; its last part tells models apart.
    name = os.path.basename(os.path.normpath(str(network.get("name", ""))))
    settings = {key: value for key, value in settings.items() if key not in _PRIVATE}
    shortlist = run.classifier.shortlist
    if isinstance(shortlist, ClipShortlist) and not HUB_ID.fullmatch(str(shortlist.path_or_id)):
        last = os.path.basename(os.path.normpath(shortlist.path_or_id))
        settings["shortlist"] = repr(clone(shortlist).set_params(path_or_id=last))
    values: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "suite": run.suite.name,
        "search": "published" if run.published else "own",
        "limit": run.limit,
        "seed": run.seed,
        "figures": figures,
        "published": {"figure": paper.figure, "source": paper.source, "model": paper.model},
        "expected": run.expected._asdict(),
        "settings": settings,
        "network": {**network, "name": name},
        "versions": {
            "diffusion_classifier": __version__,
            "python": platform.python_version(),
            **{library: version(library) for library in LIBRARIES},
        },
    }
    plain: dict[str, Any] = finite(values)
    return plain


def _write(values: dict[str, Any], path: str | os.PathLike[str]) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(values, indent=1, allow_nan=False) + "\n").encode("utf-8"))


def _finds_text(pair: NDArray[np.float64]) -> bool:
    """Whether each row is largest at its own column."""
    return bool(pair[0, 0] > pair[0, 1] and pair[1, 1] > pair[1, 0])


def _share(found: Any) -> Estimate:
    hits = list(found)
    return wilson(sum(hits), len(hits))
