"""The report of an evaluation: one HTML file that needs no other, and no network."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import InputValueError
from ..images import read_images
from ..utils.files import atomic_file
from ..utils.intervals import Estimate
from . import drawing
from .figures import Figures, as_share
from .page import page, paragraph, picture, section, table, text

MOST_WRONG = 24  # wrong answers that are shown, as many as have races
MOST_ROWS = 50  # of a table
LONGEST = 400  # characters of a setting


def write_report(
    figures: Figures, path: str | os.PathLike[str] | None = None, images: Any = None
) -> str:
    """Return the report, and write it to ``path``; see ``Evaluation.to_html``."""
    if images is not None:
        images = read_images(images, check=False)
        if len(images) != len(figures.records):
            raise InputValueError(
                f"images holds {len(images)} images, but {len(figures.records)} were evaluated; "
                "give the X that was evaluated."
            )
    draws = drawing.has_matplotlib()
    made = page(
        "Evaluation",
        paragraph(f"{as_share(figures.accuracy)} of {figures.n:,} images are right.", "lead"),
        paragraph("Ranges are 95 % intervals: Wilson's for shares, the bootstrap's else.", "note"),
        ""
        if draws
        else paragraph(
            "This report has no pictures, as matplotlib is not installed: "
            "pip install 'diffusion-classifier[plot]'.",
            "note",
        ),
        section("Summary", table(figures.lines())),
        section("Classes", _classes(figures)),
        section("Confused classes", _confused(figures, draws)),
        section("Reliability", _reliability(figures, draws)),
        section("Wrong answers", _wrong(figures, images, draws)),
        section("Skipped images", _skipped(figures)),
        section("Settings", table(_short(figures.settings))),
        section("Network", table(_short(figures.network)) if figures.network else ""),
        paragraph(f"Written by diffusion_classifier {__version__}.", "note"),
    )
    if path is not None:
        with atomic_file(path) as file:
            file.write(made.encode("utf-8"))
    return made


def _classes(figures: Figures) -> str:
    """Write a row per class, those with the lowest recall if there are many."""
    rows = figures.per_class
    caption = "Recall: share of its images that are right. Precision: of its answers."
    if len(rows) > MOST_ROWS:
        rows = sorted(rows, key=lambda row: np.nan_to_num(row["recall"].value, nan=2.0))[:MOST_ROWS]
        caption += f" The {MOST_ROWS} classes of {len(figures.classes):,} with the lowest recall."
    heads = ("class", "images", "recall (%)", "precision (%)")
    cells = [
        (row["label"], row["support"], _percent(row["recall"]), _percent(row["precision"]))
        for row in rows
    ]
    return table(cells, heads, caption, "numbers")


def _confused(figures: Figures, draws: bool) -> str:
    """Show which classes are taken for which."""
    counts = figures.confusion - np.diag(figures.confusion.diagonal())
    order = np.argsort(-counts, axis=None, kind="stable")[:10]
    pairs = [divmod(place, len(counts)) for place in order.tolist() if counts.flat[place]]
    if not pairs:
        return paragraph("All answers are right.")
    rows = [
        (figures.classes[true], figures.classes[given], counts[true, given])
        for true, given in pairs
    ]
    heads, caption = ("true class", "answer", "images"), "The most frequent confusions."
    drawn = picture(drawing.draw_confusion(figures), "Confusion matrix") if draws else ""
    return f'<div class="pair">{drawn}<div>{table(rows, heads, caption, "numbers")}</div></div>'


def _reliability(figures: Figures, draws: bool) -> str:
    """Show whether answers are as often right as they say."""
    words = (
        "Calibration error: the mean distance of confidence and accuracy, "
        f"{figures.calibration_error:.3f}. For few images it is too high."
    )
    if not draws:
        return paragraph(words)
    drawn = picture(drawing.draw_reliability(figures), "Accuracy against confidence")
    hint = "Above the diagonal, answers are more often right than they say."
    return paragraph(f"{words} {hint}") + drawn


def _wrong(figures: Figures, images: Any, draws: bool) -> str:
    """Show the most confident wrong answers, each with its picture and its race."""
    if not figures.wrong:
        return paragraph("There are none.")
    shown = figures.wrong[:MOST_WRONG]
    words = f"{len(figures.wrong):,} of {figures.n:,} answers are wrong; "
    words += f"{len(shown):,} are shown, the most confident first."
    if draws and figures.races:
        words += (
            " Each picture is a race: how far classes are behind the answer, in nats, against the "
            "network rows that the image took."
        )
    cards = "\n".join(_card(figures, place, images, draws) for place in shown)
    return f'{paragraph(words)}\n<div class="cards">\n{cards}\n</div>'


def _card(figures: Figures, place: int, images: Any, draws: bool) -> str:
    """Show one wrong answer."""
    record = figures.records[place]
    name = text(record["image"])
    parts = [f"<h3>{name}</h3>" if isinstance(record["image"], str) else f"<h3>Image {name}</h3>"]
    if images is not None:
        image = images[place]
        kind = "photo small" if max(image.size) <= drawing.SMALL else "photo"
        parts.append(picture(drawing.photograph(image), f"Image {record['image']}", kind))
    right = 100 * np.exp(-record["log_loss"])
    parts += [
        f'<p><span class="wrong">{text(record["label"])}</span> '
        f"({100 * record['probability']:.1f} %), is {text(record['true'])} "
        f"({right:.1f} %, rank {record['rank']})</p>",
        paragraph(
            f"{record['n_evaluations']:,} evaluations, "
            f"{'one class left' if record['resolved'] else 'undecided after the most draws'}",
            "note",
        ),
    ]
    race = figures.races.get(place)
    if draws and race is not None and (drawn := drawing.draw_race(race)):
        alt = f"Race of image {record['image']}: {record['label']} against {record['runner_up']}"
        parts.append(picture(drawn, alt))
    return f'<article class="card">{"".join(parts)}</article>'


def _skipped(figures: Figures) -> str:
    """List images that could not be read."""
    rows = [(r["image"], r["error"]) for r in figures.records if r["error"] is not None]
    caption = f"The first {MOST_ROWS} of {len(rows):,}." if len(rows) > MOST_ROWS else ""
    return table(rows[:MOST_ROWS], ("image", "reason"), caption) if rows else ""


def _short(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Return settings as text, without the end of long ones."""
    words = {
        name: value if isinstance(value, str) else repr(value) for name, value in values.items()
    }
    return [
        (name, value if len(value) <= LONGEST else value[: LONGEST - 1] + "…")
        for name, value in words.items()
    ]


def _percent(share: Estimate) -> str:
    """Write a share and its interval, or a dash if there is nothing to share."""
    value, low, high = (100 * number for number in share)
    return "–" if np.isnan(value) else f"{value:.0f} ({low:.0f}–{high:.0f})"
