"""What all displays share: colours, axes and how labels are written.

Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart. As they
are not all different in grey, each comes with a line style and a marker of its own. Pictures name
the few classes that matter; the others are grey and counted.
"""

from __future__ import annotations

from typing import Any

BLACK, GREY = "#000000", "#999999"
BLUE, VERMILION = "#0072B2", "#D55E00"
# Okabe and Ito, "Color Universal Design", 2008; yellow is left out, as it is too pale for lines.
COLORS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
LONGEST_LABEL = 24  # characters


def import_pyplot() -> Any:
    """Return matplotlib's pyplot.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib; install it with "
            "pip install 'diffusion-classifier[plot]', or pip install matplotlib."
        ) from error
    return pyplot


def new_axes(ax: Any, size: tuple[float, float] = (6.4, 4.0)) -> Any:
    """Return the axes to draw in: those given, or those of a new figure of ``size`` inches.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    pyplot = import_pyplot()
    if ax is None:
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    return ax


def look(number: int) -> dict[str, Any]:
    """Return colour, line style and marker of the line with this number, as plot() takes them.

    Examples
    --------
    >>> look(1)
    {'color': '#D55E00', 'linestyle': '--', 'marker': 's'}
    """
    number %= len(COLORS)
    return {"color": COLORS[number], "linestyle": LINES[number], "marker": MARKERS[number]}


def legend_beside(ax: Any, title: str | None = None) -> None:
    """Put the legend to the right of the axes, where it hides nothing."""
    place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "alignment": "left"}
    ax.legend(title=title, title_fontsize="small", fontsize="small", frameon=False, **place)


def as_label(label: Any) -> str:
    """Write a class label on one line of at most 24 characters, without mathematics.

    Examples
    --------
    >>> as_label("cat"), as_label("a photo of a very long-haired cat"), as_label("$5")
    ('cat', 'a photo of a very long-…', '\\\\$5')
    """
    text = " ".join(str(label).split())
    text = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return text.replace("$", r"\$")


def plural(n: int, noun: str = "class", nouns: str = "classes") -> str:
    """Count things, as in "1 class" and "1,000 classes".

    Examples
    --------
    >>> plural(1), plural(1000), plural(2, "image", "images")
    ('1 class', '1,000 classes', '2 images')
    """
    return f"{n:,} {noun if n == 1 else nouns}"
