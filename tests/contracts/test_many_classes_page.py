"""The page on many classes does what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "many-classes.md"


def test_every_line_of_the_page_runs(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4
    names: dict = {}
    for block in blocks:
        exec(block, names)
    share, *candidates = capsys.readouterr().out.split()
    assert float(share) > 0.95
    assert candidates == ["[2]", "[10]"]
    assert (names["predicted"] == names["y"][900:905]).mean() >= 0.8
