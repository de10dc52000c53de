"""The benchmarks' pictures show what their pages say: one row for each pruner, with intervals."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "benchmarks"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "benchmarks" / "pictures.py"))


def test_cells_of_tables_are_read_with_their_intervals(script):
    read = script["read_figure"]
    assert read("10,872 (7,103 to 14,705)") == [10872, 7103, 14705]
    assert read("-0.60% (-1.20% to +0.10%)") == [-0.6, -1.2, 0.1]
    assert read("98%") == [98] * 3


@pytest.mark.parametrize(("name", "n"), [("race", 1000), ("mixture", 250)])
def test_pictures_are_drawn_from_their_pages(script, name, n, tmp_path):
    page = Path(shutil.copy(PAGES / f"{name}.md", tmp_path))
    picture = script["draw_page"](page)
    assert 5_000 < page.with_suffix(".png").stat().st_size < 150_000
    cost, change = picture.axes
    pruners = [tick.get_text() for tick in cost.get_yticklabels()]
    rows = [
        row
        for row in script["read_rows"](page.read_text(encoding="utf-8"), "")
        if row["weighting"] == "uniform" and row["pruner"] != "none"
    ]
    assert sorted(pruners) == sorted({row["pruner"] for row in rows})
    drawn = [bar.lines[0].get_xydata()[0] for bar in cost.containers]
    assert len(drawn) == len(rows) == len(change.containers) == 2 * len(pruners)
    expected = {script["read_figure"](script["pick"](row, script["SPENT"]))[0] for row in rows}
    assert {x for x, _ in drawn} == expected
    heights = [round(y) for _, y in drawn]
    assert sorted(heights) == sorted([*range(len(pruners))] * 2)  # nothing on top of another
    for bar, row in zip(change.containers, change.containers, strict=True):
        hollow = bar.lines[0].get_markerfacecolor() == "white"
        ends = np.array(row.lines[2][0].get_segments()[0])[:, 0]
        if hollow:  # of no image that differed, the bound
            assert ends.tolist() == pytest.approx([0, 300 / n])
    assert f"of {n:,} answers" in picture.get_suptitle()
