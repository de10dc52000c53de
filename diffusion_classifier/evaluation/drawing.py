"""Pictures of a report, as data URIs: displays drawn as SVG, photographs as PNG or JPEG."""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ..plotting import ConfusionDisplay, RaceDisplay, ReliabilityDisplay
from ..plotting.raced import raced
from ..records.table import ErrorTable
from .figures import Figures
from .metrics import N_BINS

MOST_PIXELS = 480  # longest side of a photograph
SMALL = 96  # pixels; pictures up to this size are enlarged without smoothing
_MOST_LABELS = 20  # classes with a row of their own in the confusion matrix


def has_matplotlib() -> bool:
    """Return whether displays can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_race(race: ErrorTable) -> str:
    """Draw the race of a table's only image; return "" if it had a single candidate."""
    if raced(race, 0) is None:
        return ""

    def draw(ax: Any) -> None:
        RaceDisplay.from_table(race, ax=ax)
        # Beside the axes the legend would take half of a narrow screen.
        beside = ax.get_legend()
        handles, labels = ax.get_legend_handles_labels()
        title = beside.get_title().get_text()
        beside.remove()
        style = {"frameon": False, "fontsize": "small", "title_fontsize": "small"}
        ax.figure.legend(
            handles, labels, title=title, loc="outside lower left", alignment="left", **style
        )

    return _drawn(draw, (3.6, 3.9))


def draw_reliability(figures: Figures) -> str:
    """Draw accuracy against confidence, over the bins of the calibration error."""
    answers = np.where(figures.right, "right", "wrong")
    confidence = figures.column("probability")[:, None]

    def draw(ax: Any) -> None:
        ReliabilityDisplay.from_predictions(
            answers, confidence, ["right"], n_bins=N_BINS, strategy="uniform", ax=ax
        )

    return _drawn(draw, (4.4, 4.2))


def draw_confusion(figures: Figures) -> str:
    """Draw which classes are taken for which."""
    size = 3.8 + 0.12 * min(len(figures.classes), _MOST_LABELS)

    def draw(ax: Any) -> None:
        ConfusionDisplay.from_counts(
            figures.confusion, figures.classes, max_classes=_MOST_LABELS, ax=ax
        )

    return _drawn(draw, (1.1 * size, size))


def photograph(image: Image.Image) -> str:
    """Return a picture as it was given, or made smaller."""
    image = image.convert("RGB")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    small = max(image.size) <= SMALL
    file = io.BytesIO()
    image.save(file, "PNG" if small else "JPEG", **({} if small else {"quality": 85}))
    return _uri("png" if small else "jpeg", file.getvalue())


def _drawn(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """Return what ``draw`` draws in a figure of ``size`` inches, as SVG.

    The figure is none of pyplot's, and has matplotlib's default style and constant ids, so that
    the same evaluation gives the same file.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with style.context(["default", {"svg.hashsalt": "diffusion_classifier"}]):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _uri("svg+xml", file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
