"""Shared style: colours that are told apart, and what happens without matplotlib."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors

import diffusion_classifier.plotting as plotting
from diffusion_classifier.plotting.style import COLORS, LINES, MARKERS, as_label, look
from tests.support.tables import make_table

# Viénot, Brettel and Mollon, 1999: linear RGB as seen without red-, or without green-sensitivity
SEEN = {
    "all": np.eye(3),
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


@pytest.mark.parametrize("vision", SEEN)
def test_colours_differ_for_colour_blind_eyes(vision):
    rgb = np.array([colors.to_rgb(color) for color in COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SEEN[vision]).T, 0, 1) ** (1 / 2.4)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    assert distance[~np.eye(len(COLORS), dtype=bool)].min() > 0.1


def test_every_colour_has_a_line_and_a_marker_of_its_own():
    assert len(set(map(str, LINES))) == len(set(MARKERS)) == len(COLORS)
    assert look(len(COLORS)) == look(0)


def test_labels_are_one_short_line_and_no_formula():
    assert as_label("two\nlines") == "two lines"
    assert as_label("$x$") == r"\$x\$"
    assert len(as_label("x" * 100)) == 24 and as_label(7) == "7"


def test_displays_load_matplotlib_only_to_draw_and_say_when_it_is_missing(monkeypatch):
    for path in Path(plotting.__file__).parent.glob("*.py"):
        assert not re.search(r"^(from|import) matplotlib", path.read_text("utf-8"), re.M), path
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'diffusion-classifier\[plot\]'"):
        plotting.ReliabilityDisplay.from_predictions([0, 1], [[1, 0], [0, 1]], [0, 1])


def test_every_display_draws_into_given_axes():
    from matplotlib import pyplot

    table, y = make_table(n_images=4)
    X = np.zeros((4, 5, 5, 3), np.uint8)
    for name in set(plotting.__all__) - {"EvidenceMapDisplay"}:
        figure, axes = pyplot.subplots(1, 2)
        display = getattr(plotting, name)
        if name == "RaceDisplay":
            shown = display.from_table(table, ax=axes[1])
        elif name == "ContactSheet":
            shown = display.from_table(table, X, y, ax=axes[1])
        else:
            shown = display.from_table(table, y, ax=axes[1])
        assert shown.ax_ is axes[1] and shown.figure_ is figure, name
        assert not axes[0].has_data(), name
        pyplot.close("all")
