"""The page of pictures runs, shows every display, and its pictures are small."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from diffusion_classifier import plotting

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pictures.md"


def test_every_line_of_the_page_runs_and_writes_its_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / "examples" / "pictures.py"))["main"]
    names = main(["--output", str(tmp_path), "--n-images", "4", "--draws", "6"])
    pyplot.close("all")
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"\(pictures/(\w+\.png)\)", text)
    assert sorted(shown) == sorted(path.name for path in tmp_path.glob("*.png"))
    used = re.findall(r"import (\w+)\n\n", text)
    assert set(used) >= set(plotting.__all__)
    total, error = names["nats"].sum(), names["standard_error"]
    t = names["table"].scoring.temperature(6)
    assert total == pytest.approx(names["ending"].margin / t, rel=1e-3, abs=1e-3)
    assert error.shape == (8, 8)


def test_pictures_of_the_page_are_small_and_not_empty():
    for name in re.findall(r"\((pictures/\w+\.png)\)", PAGE.read_text(encoding="utf-8")):
        path = PAGE.parent / name
        assert 5_000 < path.stat().st_size < 150_000, name
        with Image.open(path) as image:
            assert image.width > 400 and np.asarray(image.convert("L")).std() > 10, name
