"""The page on memory holds what its script counts, and the script counts the published models."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
# as their checkpoints have them
DENOISERS = {
    "SDXL": 2_567_463_684,
    "SD3 medium": 2_028_328_000,
    "SD3.5 large": 8_056_627_520,
    "Flux dev": 11_901_408_320,
}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))


def test_the_tables_are_those_that_the_script_prints(script):
    found = {name: script["measure"](size) for name, size in script["SIZES"].items()}
    assert {name: part["denoiser"] for name, part in found.items()} == DENOISERS
    assert script["as_markdown"](found) in PAGE


def test_text_encoders_are_of_their_published_sizes(script):
    count = script["count_parameters"]
    assert count(script["clip_l"]) == 123_060_480
    assert count(script["clip_g"]) == 694_659_840
    assert count(script["t5_xxl"]) == 4_762_310_656
