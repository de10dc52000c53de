"""The page on differing accuracy runs from top to bottom and states what its lines print."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "why-accuracy-differs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.M | re.S)
SLOW = "image_size=48"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def slack(line, number):
    """How far a number may be off: another processor rounds otherwise and may turn an answer."""
    if "." in number:
        return {"abs": 0.1 if "nats" in line else 0.001, "rel": 0.03}
    return {"abs": 1 if " of " in line else 0, "rel": 0}


def check(blocks, capsys):
    """Run blocks one after another; compare what they print with what stands below them."""
    names = {}
    for code, stated in blocks:
        exec(code, names)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", stated)
        for line, said in zip(printed.splitlines(), stated.splitlines(), strict=True):
            for found, expected in zip(NUMBER.findall(line), NUMBER.findall(said), strict=True):
                assert float(found) == pytest.approx(float(expected), **slack(line, found)), line


def test_every_block_states_what_it_prints():
    assert len(BLOCKS) == PAGE.count("```python") == PAGE.count("```text") >= 10
    assert sum(SLOW in code for code, _ in BLOCKS) == 1


def test_the_blocks_print_what_the_page_states(capsys):
    check([block for block in BLOCKS if SLOW not in block[0]], capsys)


@pytest.mark.slow
def test_so_does_the_block_on_large_images(capsys):
    check(BLOCKS, capsys)
