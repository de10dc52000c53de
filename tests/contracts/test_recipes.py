"""The page of recipes does what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_every_line_of_the_recipes_runs(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 22
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert "evaluations" in capsys.readouterr().err  # the last block's bar
    assert names["table"].errors.shape == (len(names["y"]), 3, 8)
    assert len(names["view"]) == len(names["y"]) and "Rows per network call" in names["page"]
    assert names["again"].classes_.tolist() == ["blue", "green", "red"]
