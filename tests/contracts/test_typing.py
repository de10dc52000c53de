"""What a type checker finds in users' scripts; each Literal lists what its registry has."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from diffusion_classifier.backends.base import INPUT_KINDS, InputKind
from diffusion_classifier.datasets import SPLITS, Split
from diffusion_classifier.images.resize import RESIZE_MODES, ResizeMode
from diffusion_classifier.noise import LOSSES, PROCESSES, PredictionTypeName
from diffusion_classifier.pruners import PRUNERS, PrunerName
from diffusion_classifier.samplers import SAMPLERS, SamplerName
from diffusion_classifier.scoring import (
    CALIBRATORS,
    WEIGHTINGS,
    CalibratorName,
    LossName,
    WeightingName,
)

needs_mypy = pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is in the dev extra")
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


@needs_mypy
def test_a_right_script_is_accepted():
    assert complaints("right.py") == []


@needs_mypy
def test_each_mistake_is_found_and_nothing_else():
    lines = (SCRIPTS / "wrong.py").read_text(encoding="utf-8").splitlines()
    mistakes = [n for n, line in enumerate(lines, 1) if line.endswith("# wrong")]
    assert len(mistakes) == 7
    assert complaints("wrong.py") == [(line, "arg-type") for line in mistakes]


@pytest.mark.parametrize(
    ("literal", "known"),
    [
        (SamplerName, SAMPLERS),
        (PrunerName, PRUNERS),
        (WeightingName, WEIGHTINGS),
        (CalibratorName, CALIBRATORS),
        (LossName, [*LOSSES, "vlb"]),
        (PredictionTypeName, PROCESSES),
        (ResizeMode, RESIZE_MODES),
        (InputKind, INPUT_KINDS),
        (Split, SPLITS),
    ],
    ids=lambda names: " ".join(get_args(names) or names),
)
def test_a_type_checker_knows_the_names_that_are_accepted(literal, known):
    assert set(get_args(literal)) == set(known)
