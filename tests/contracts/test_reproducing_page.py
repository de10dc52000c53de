"""The page "Reproducing the paper" says what the suites say."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")


def test_the_page_is_what_its_script_writes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    script = importlib.import_module("reproducing")
    rate = json.loads((ROOT / "docs/benchmarks/gpu.json").read_text())["SD1.5"]["race"]["rate"]
    made = script.make_page(rate)
    for name in set(sys.modules) - before:  # their names are too plain to stay
        if "benchmarks" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    assert PAGE.startswith(made)


def test_hours_of_pets_by_hand():
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `pets`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["3,669", "87.3", "", "2,050"]
    assert float(cells[5]) == pytest.approx(2050 * 3669 / 332.5 / 3600, abs=0.06)
