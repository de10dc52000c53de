"""The command line: what it prints and writes, how it stops, and what it returns to the shell."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier import DiffusionClassifier, __version__
from diffusion_classifier.cli import Exit, app, running
from diffusion_classifier.cli.inputs import find_images, read_labels, shard_of
from diffusion_classifier.cli.outputs import COLUMNS, to_csv
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.evaluation import FIELDS, predictions
from diffusion_classifier.race.engine import Engine

LABELS = ["red digit", "green digit", "blue digit"]
SCENES = load_scenes("test", n_samples=6).images


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(SCENES):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def run(*arguments, **options):
    command = ["predict", *map(str, arguments), "--labels", ",".join(LABELS), "--quiet"]
    return CliRunner().invoke(app, command, catch_exceptions=False, **options)


def expected():
    clf = DiffusionClassifier(random_state=0).fit(None, LABELS)
    return predictions(clf, SCENES, top=2)


def test_json_holds_the_answers_and_the_settings(folder, tmp_path):
    file = tmp_path / "answers.json"
    assert run(folder, "--top", 2, "--json", file).exit_code == Exit.ANSWERED
    report = json.loads(file.read_text())
    assert [row.pop("image") for row in report["results"]] == [
        str(folder / f"{number}.png") for number in range(6)
    ]
    for row, record in zip(report["results"], expected(), strict=True):
        assert row["probability"] == pytest.approx(record["probability"], rel=1e-4)
        assert row["labels"] == record["labels"] and row["resolved"] == record["resolved"]
    del report["results"], report["settings"]
    assert report == {
        "schema": 1, "command": "predict", "version": __version__, "model": "embedded",
        "labels": LABELS, "seed": 0, "shard": None, "complete": True, "summary": None,
    }  # fmt: skip


def test_csv_and_json_lines_hold_one_row_per_image(folder, tmp_path):
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    run(folder, "--csv", table, "--jsonl", lines)
    rows = list(csv.DictReader(table.open()))
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["label"] for row in rows] == [record["label"] for record in records]
    assert [float(row["probability"]) for row in rows] == [r["probability"] for r in records]
    assert set(records[0]) == {"image", *FIELDS}


def test_without_a_file_answers_are_printed(folder):
    command = ["predict", str(folder / "0.png"), "--labels", ",".join(LABELS)]
    printed = CliRunner().invoke(app, command).stdout
    assert printed.startswith(f"{folder / '0.png'}\t{expected()[0]['label']}\t0.")


def test_shards_are_all_images_once(folder, tmp_path):
    images = []
    for number in (1, 2, 3, 4):
        file = tmp_path / "part.json"
        assert run(folder, "--shard", f"{number}/4", "--json", file).exit_code == 0
        images.append([row["image"] for row in json.loads(file.read_text())["results"]])
    assert [len(part) for part in images] == [2, 2, 1, 1]
    assert sorted(path for part in images for path in part) == find_images([str(folder)])
    for bad in ("0/4", "5/4", "1", "a/b", "1/0", "1/4/4", "-1/4"):
        with pytest.raises(InputValueError, match="must be i/n"):
            shard_of(9, bad)


def test_images_are_found_in_folders_globs_and_on_stdin(folder, tmp_path, monkeypatch):
    everything = [str(folder / f"{number}.png") for number in range(6)]
    assert find_images([str(folder)]) == find_images([str(folder / "*.png")]) == everything
    assert find_images([everything[3], everything[1]]) == [everything[3], everything[1]]
    file = tmp_path / "out.json"
    listed = "\n".join(everything[:2]) + "\n\n"
    assert run("-", "--json", file, input=listed).exit_code == 0
    assert [row["image"] for row in json.loads(file.read_text())["results"]] == everything[:2]
    with pytest.raises(InputValueError, match="no file matches"):
        find_images([str(folder / "*.jpg")])
    with pytest.raises(InputValueError, match="no images"):
        find_images([])


def test_labels_come_from_an_option_or_a_file(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("cat\n\n dog \n", encoding="utf-8-sig")
    assert read_labels(None, file) == read_labels("cat, dog,", None) == ["cat", "dog"]
    assert read_labels('cat, "salt, pepper"', None) == ["cat", "salt, pepper"]
    for both in ((None, None), ("cat", file)):
        with pytest.raises(InputValueError, match="either --labels or --labels-file"):
            read_labels(*both)
    with pytest.raises(InputValueError, match="does not exist"):
        read_labels(None, tmp_path / "none.txt")
    file.write_bytes("crème".encode("latin-1"))
    with pytest.raises(InputValueError, match=r"is not in UTF-8 .* at byte 2"):
        read_labels(None, file)


def test_unreadable_images_are_an_error_or_skipped(folder, tmp_path):
    (folder / "2.png").write_bytes(b"no picture")
    refused = run(folder)
    assert refused.exit_code == Exit.FAILED and refused.stderr.count("\n") == 1
    assert re.match(r"error: image 2: .*2\.png", refused.stderr)
    file = tmp_path / "out.json"
    assert run(folder, "--on-error", "skip", "--json", file).exit_code == Exit.SKIPPED
    rows = json.loads(file.read_text())["results"]
    assert [row["error"] is None for row in rows] == [True, True, False, True, True, True]
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    assert run(folder, "--on-error", "skip", "--json", file).exit_code == Exit.SKIPPED
    assert len(json.loads(file.read_text())["results"]) == 6


def test_an_error_on_the_way_keeps_the_answers_before_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BLOCK", 2)
    bad = folder / "4.png"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])  # its header is whole
    file = tmp_path / "out.json"
    failed = run(folder, "--json", file)
    assert failed.exit_code == Exit.FAILED and "4.png" in failed.stderr
    assert failed.stderr.startswith("4 of 6 images were answered before this:\n")
    report = json.loads(file.read_text())
    assert not report["complete"]
    assert [row["image"] for row in report["results"]][:4] == [
        str(folder / f"{number}.png") for number in range(4)
    ]
    assert run(folder, "--json", file, "--on-error", "skip").exit_code == Exit.SKIPPED
    (row,) = [row for row in json.loads(file.read_text())["results"] if row["error"]]
    assert row["image"] == str(bad) and "image 0" not in row["error"]


def test_places_that_cannot_be_written_are_refused_before_any_work(folder, tmp_path, monkeypatch):
    steps = stopping(monkeypatch, 10**9)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for place, problem in (("none/a.csv", "does not exist; make"), ("link", "a symbolic link")):
        refused = run(folder, "--csv", tmp_path / place)
        assert refused.exit_code == Exit.USAGE and problem in refused.stderr
    assert steps == []


def test_file_names_that_are_no_unicode_are_written_escaped(folder, tmp_path):
    name = os.fsdecode(bytes(folder) + b"/\xe9.png")
    (folder / "0.png").rename(name)
    file = tmp_path / "out.csv"
    assert run(name, "--csv", file).exit_code == 0
    assert file.read_text(encoding="utf-8").splitlines()[1].startswith(rf"{folder}/\xe9.png,")


def test_an_empty_shard_is_done(folder, tmp_path):
    file = tmp_path / "out.csv"
    assert run(folder, "--shard", "8/8", "--csv", file).exit_code == 0
    assert file.read_text() == ",".join(COLUMNS) + "\n"


def stopping(monkeypatch, n_steps):
    """Press Ctrl-C at the start of a step of the network."""
    begin, steps = Engine.begin, []

    def stop(self, requests):
        steps.append(sum(request.n_rows for request in requests))
        if len(steps) == n_steps:
            signal.raise_signal(signal.SIGINT)
        return begin(self, requests)

    monkeypatch.setattr(Engine, "begin", stop)
    return steps


@pytest.fixture
def interruptible():
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_an_interrupt_keeps_the_answers_and_the_same_command_resumes(
    folder, tmp_path, monkeypatch, interruptible
):
    file, options = tmp_path / "out.json", ("--memory", tmp_path / "store", "--batch-size", 4)
    with monkeypatch.context() as patch:
        before = stopping(patch, 40)
        stopped = run(folder, "--json", file, *options)
    assert stopped.exit_code == Exit.INTERRUPTED
    report = json.loads(file.read_text())
    n_done = len(report["results"])
    assert not report["complete"] and n_done < 6
    assert f"interrupted: {n_done} of 6 images; run it again" in stopped.stderr
    with monkeypatch.context() as patch:
        after = stopping(patch, 10**9)
        assert run(folder, "--json", file, *options).exit_code == 0
    results = json.loads(file.read_text())["results"]
    undisturbed = stopping(monkeypatch, 10**9)
    assert run(folder, "--json", file, "--batch-size", 4).exit_code == 0
    assert json.loads(file.read_text())["results"] == results
    assert sum(before[:-1]) + sum(after) == sum(undisturbed)  # nothing is paid twice


def test_a_time_cap_ends_the_run_with_a_code_of_its_own(folder, tmp_path, interruptible):
    file = tmp_path / "out.json"
    file.write_text("an earlier result")
    for ignored in (False, True):  # the shell lets background jobs ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
        stopped = run(folder, "--json", file, "--max-minutes", 0)
        assert stopped.exit_code == Exit.TIME
        assert "stopped at the time cap" in stopped.stderr and "--memory DIR" in stopped.stderr
        assert file.read_text() == "an earlier result"


def test_csv_starts_no_formula():
    row = dict.fromkeys(FIELDS) | {"image": "=1+1", "label": "@cat", "probability": 0.5}
    assert to_csv([row]).splitlines()[1] == "'=1+1,'@cat,0.5,,,,"


def test_errors_of_the_process_are_one_line_and_a_code(folder):
    command = [sys.executable, "-m", "diffusion_classifier", "predict", folder / "7.png"]
    failed = subprocess.run(
        [*map(str, command), "--labels", "cat,dog"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert failed.returncode == Exit.FAILED and failed.stdout == ""
    assert failed.stderr.startswith("error: image 0: ") and failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--top", "many"], "'--top'"),
        (["--labels", "cat"], "give at least two classes"),
        (["--labels-file", "none.txt"], "the labels file 'none.txt' does not exist"),
        (["--labels", "cat,dog", "--model", "none/there"], "none/there"),
        (["--labels", "cat,dog", "--shard", "3/2"], "must be i/n"),
        (["--labels", "cat,dog", "--tpo", "5"], "--tpo"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(folder, arguments, problem):
    refused = CliRunner().invoke(app, ["predict", str(folder), *arguments])
    assert refused.exit_code == Exit.USAGE and refused.stdout == ""
    assert problem in refused.stderr and refused.stderr.count("\n") == 1


def test_the_version_is_printed():
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__
