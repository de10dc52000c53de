"""The page about the Hub: its code runs, in order, on fewer images."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(hub):
    space = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block.replace("n_samples=60", "n_samples=8"), space)
    commits = hub.repos["owner/digits"]["commits"]
    assert len(commits) == 3  # the empty one, and two pushes
    head = hub.files("owner/digits")["README.md"].decode().split("---")[1]
    assert "model-index" in head and "coloured digits, test, first 60" in head
    assert space["again"].hub_ == space["clf"].hub_
