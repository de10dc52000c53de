"""Draw race.png and mixture.png from the tables of race.md and mixture.md.

The benchmarks draw their picture when they end. This draws both again from the pages, without
racing, in a second or two:

    python benchmarks/pictures.py
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

FOLDER = Path("docs/benchmarks")
# Names of the columns that are drawn, on either page.
SPENT = ("evaluations per scene", "evaluations per image")
UNLIKE = ("differs from full", "differs from the full grid")
SAMPLER = ("sampler", "timesteps")
# What costs are compared with, in evaluations per image.
REFERENCES = {"race": ("full grid", 2000), "mixture": ("published schedule", 124_500)}


def read_figure(cell):
    """Read a cell as [value, low, high], such as "2.5% (1.5% to 3.4%)"; the value alone thrice."""
    numbers = [float(text.replace(",", "")) for text in re.findall(r"[-+]?[\d,]*\.?\d+", cell)]
    return numbers if len(numbers) == 3 else numbers[:1] * 3


def read_rows(page, heading):
    """Read the first table after a heading that starts with ``heading``, as a list of dicts."""
    lines = page[re.search(rf"^## {heading}", page, re.M).start() :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    names, _, *rows = rows
    return [dict(zip(names, row, strict=True)) for row in rows]


def pick(row, names):
    return next(row[name] for name in names if name in row)


def collect(rows):
    """Return {pruner: {sampler: (evaluations, share unlike the full grid)}} of uniform weights."""
    found = {}
    for row in rows:
        if row["weighting"] == "uniform" and row["pruner"] != "none":
            figures = read_figure(pick(row, SPENT)), read_figure(pick(row, UNLIKE))
            found.setdefault(row["pruner"], {})[pick(row, SAMPLER)] = figures
    return found


def draw(found, n_images, reference, path):
    """Draw a row for each pruner, the cheapest at the bottom: its cost, and what it changes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from diffusion_classifier.plotting.style import GREY, look

    samplers = list(dict.fromkeys(sampler for row in found.values() for sampler in row))
    pruners = sorted(found, key=lambda pruner: min(e[0] for e, _ in found[pruner].values()))
    picture = Figure(figsize=(9, 0.55 * len(pruners) + 1.9), layout="constrained")
    cost, change = picture.subplots(1, 2, sharey=True)
    for number, sampler in enumerate(samplers):
        style = look(number)
        places = np.arange(len(pruners)) + 0.16 * (1 - 2 * number)
        for place, pruner in zip(places, pruners, strict=True):
            spent, unlike = found[pruner][sampler]
            name = f"{sampler} timesteps" if place == places[0] else None
            draw_interval(cost, spent, place, style, label=name)
            draw_interval(change, unlike, place, style, bound=300 / n_images)
    cost.set(xscale="log", xlabel="evaluations per image, of all classes together")
    cost.axvline(reference[1], color=GREY, linestyle="--", label=reference[0])
    cost.xaxis.set_major_locator(LogLocator())
    cost.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    cost.xaxis.set_minor_formatter(NullFormatter())
    cost.set_yticks(range(len(pruners)), pruners)
    cost.set_ylim(-0.5, len(pruners) - 0.5)
    change.set_xlabel("answers unlike the full grid's (%)")
    change.set_xlim(left=-0.05 * change.get_xlim()[1])
    for axes in (cost, change):
        axes.grid(axis="y", alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    picture.suptitle(title(found, n_images, reference), fontsize="medium")
    picture.legend(
        loc="outside lower center", ncols=3, frameon=False,
        fontsize="small", title_fontsize="small",
        title=f"{n_images:,} images, uniform weights. Bars: 95 % intervals; hollow: none of "
        f"{n_images:,} differed, bar to the bound 3 / n",
    )  # fmt: skip
    picture.savefig(path, dpi=110)
    return picture


def draw_interval(axes, figure, place, style, *, bound=None, label=None):
    """Draw a value with its interval; a share of 0 is hollow, with a bar to its upper bound."""
    value, low, high = figure
    none = bound is not None and high == 0
    arms = [[value - low], [(bound if none else high) - value]]
    look = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
    look["markerfacecolor"] = "white" if none else style["color"]
    axes.errorbar(value, place, xerr=np.clip(arms, 0, None), capsize=3, label=label, **look)


def title(found, n_images, reference):
    """Say what the learned race costs at its cheapest, and what it changes."""
    name, evaluations = reference
    spent, unlike = min(found["racing"].values(), key=lambda figures: figures[0][0])
    return (
        f"Learned racing: 1/{evaluations / spent[0]:.0f} of the evaluations of the {name}, "
        f"{unlike[0] * n_images / 100:.0f} of {n_images:,} answers unlike the full grid's"
    )


def draw_page(page):
    """Draw the picture of race.md or mixture.md beside it, and return it."""
    text = page.read_text(encoding="utf-8")
    if page.stem == "race":
        rows = read_rows(text, "Races")
        n_images = int(re.search(r"([\d,]+) held-out scenes", text)[1].replace(",", ""))
    else:
        images, seeds = re.search(r"^## (\d+) images x (\d+) seeds", text, re.M).groups()
        rows, n_images = read_rows(text, f"{images} images x"), int(images) * int(seeds)
    return draw(collect(rows), n_images, REFERENCES[page.stem], page.with_suffix(".png"))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="with race.md and mixture.md")
    args = parser.parse_args(argv)
    for name in REFERENCES:
        draw_page(args.folder / f"{name}.md")


if __name__ == "__main__":
    main()
