"""The page on differing accuracy runs from top to bottom and states what its lines print."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "why-accuracy-differs.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def test_the_page_runs_and_its_figures_are_true(capsys):
    names = {}
    for block in BLOCKS:
        exec(block, names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["[True, True, True]", "[20, 70, 150, 500]", "5550"]
    assert [line.split()[0] for line in printed[3:]] == [
        "uniform", "native", "likelihood", "exponential"
    ]  # fmt: skip
    assert all(int(line.split()[1]) > 10 for line in printed[3:])
