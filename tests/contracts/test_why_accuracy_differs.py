"""The page on differing accuracy runs from top to bottom and states what its lines print."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "why-accuracy-differs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.M | re.S)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


@pytest.fixture(scope="module")
def page():
    """Run the blocks one after another; return their variables."""
    return {}


def test_every_block_states_what_it_prints():
    assert len(BLOCKS) == PAGE.count("```python") == PAGE.count("```text") >= 7


def test_the_blocks_print_what_the_page_states(page, capsys):
    for code, stated in BLOCKS:
        exec(code, page)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", stated)
        for line, said in zip(printed.splitlines(), stated.splitlines(), strict=True):
            # Another processor rounds otherwise, which may turn a close answer.
            slack = 1 if "right" in line else 0.1 if "nats" in line else 0.01
            assert numbers(line) == pytest.approx(numbers(said), abs=slack, rel=0.05), line
