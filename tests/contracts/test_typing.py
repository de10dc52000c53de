"""What mypy --strict says of users' scripts: nothing of right ones, each mistake of wrong ones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is one of the dev extra's packages")
SCRIPTS = Path(__file__).parent / "typing"


def complaints(name):
    """(line, kind) of each error."""
    options = ["--strict", "--follow-imports=silent", "--config-file=", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, str(SCRIPTS / name)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS.parents[2])
    assert not run.stderr, run.stderr
    found = re.findall(r"^.*?:(\d+): error: .*?\[([a-z-]+)\]$", run.stdout, re.M)
    assert len(found) == run.stdout.count("error:"), run.stdout
    return [(int(line), kind) for line, kind in found]


def test_a_right_script_is_accepted():
    assert complaints("right.py") == []


def test_each_mistake_is_found_and_nothing_else():
    lines = (SCRIPTS / "wrong.py").read_text(encoding="utf-8").splitlines()
    mistakes = [n for n, line in enumerate(lines, 1) if line.startswith("DiffusionClassifier(")]
    assert len(mistakes) == 5
    assert complaints("wrong.py") == [(line, "arg-type") for line in mistakes]
