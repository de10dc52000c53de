"""Stores survive kills, full disks, read-only folders and many processes at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import stores

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes"),
]


@pytest.fixture(scope="module")
def outcome():
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.stores"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_killed_runs_are_resumed_bit_for_bit_from_what_was_written(outcome):
    runs = outcome["killed"]
    assert [run["killed"] for run in runs] == [True] * stores.N_KILLS
    assert all(run["same"] and run["sound"] and run["images"] == len(stores.X) for run in runs)
    lost = [run["again"] for run in runs]
    assert max(lost) <= stores.WINDOW + stores.MOST_ROWS_PER_STEP
    assert sum(run["before"] for run in runs) > 5 * sum(lost)


@pytest.mark.parametrize("number", ["two", "eight"])
def test_processes_share_a_store(outcome, number):
    run = outcome[number]
    assert set(run["codes"]) == {0}
    assert run["same"] and run["sound"]
    assert (run["again"], run["images"]) == (0, len(stores.X))


def test_a_full_disk_is_an_error_that_keeps_what_was_paid_for(outcome):
    run = outcome["full"]
    assert "make room" in run["message"]
    assert run["partial"] > 0
    assert run["kept"] > 0
    assert run["same"]


def test_a_read_only_store_answers_what_it_holds_and_refuses_the_rest_before_any_work(outcome):
    assert outcome["read_only"] == {"statuses": [0, 7], "evaluations": 0}
