"""What commands write and print: JSON that all can read, one output per stream, no surprises."""

import json
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.cli import Exit, app, running
from diffusion_classifier.cli.outputs import to_json, to_json_lines
from diffusion_classifier.cli.running import numbered
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputValueError, NonFiniteOutputError

SCENES = load_scenes("test", n_samples=4)
LABELS = ["--labels", "red digit,blue digit", "--max-draws", "4", "--batch-size", "32"]


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    for number, image in enumerate(SCENES.images):
        (place / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / "ab"[number % 2] / f"{number}.png")
    return place


def test_numbers_that_json_lacks_are_null():
    value = {"a": [1.5, float("nan")], "b": (float("inf"), {"c": -float("inf")}), "d": "NaN"}
    expected = {"a": [1.5, None], "b": [None, {"c": None}], "d": "NaN"}
    assert json.loads(to_json(value)) == expected
    assert json.loads(to_json_lines([value])) == expected


def test_a_map_without_standard_errors_is_json(folder, tmp_path):
    out = tmp_path / "why.json"
    options = ["--labels", "red digit,blue digit", "--max-draws", 1, "--json", out]
    result = run("explain", folder / "a" / "0.png", "-o", tmp_path / "why.png", *options)
    assert result.exit_code == 0 and "NaN" not in out.read_text()
    error = json.loads(out.read_text())["summary"]["standard_error"]
    assert np.shape(error) == (8, 8) and {item for row in error for item in row} == {None}


def test_explain_asks_for_matplotlib_before_it_computes(folder, tmp_path, monkeypatch):
    loaded, fit = [], DiffusionClassifier.fit

    def count(self, *arguments):
        loaded.append(1)
        return fit(self, *arguments)

    monkeypatch.setattr(DiffusionClassifier, "fit", count)
    options = ["-o", tmp_path / "why.png", *LABELS]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        refused = run("explain", folder / "a" / "0.png", *options)
    assert refused.exit_code == Exit.FAILED and loaded == []
    assert "diffusion-classifier[plot]" in refused.stderr
    assert run("explain", folder / "a" / "0.png", *options).exit_code == 0 and loaded == [1]


def test_a_stream_holds_one_output(folder):
    options = ["--max-draws", 2, "--batch-size", 32]
    result = run("evaluate", folder, *options, "--csv", "-")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("image,true,label,") and len(lines) == 1 + 4
    assert all(line.startswith(str(folder)) for line in lines[1:])


@pytest.mark.parametrize(
    ("first", "second"),
    [("-", "-"), ("out", "out"), ("out", "./out"), ("out.csv", "out.settings.yaml")],
)
def test_two_outputs_have_two_paths(folder, tmp_path, monkeypatch, first, second):
    monkeypatch.chdir(tmp_path)
    refused = run("predict", *folder.rglob("*.png"), *LABELS, "--csv", first, "--json", second)
    assert refused.exit_code == Exit.USAGE and "path of two outputs" in refused.stderr
    assert refused.stdout == "" and sorted(os.listdir(tmp_path)) == ["photos"]


def test_control_characters_are_not_sent_to_the_terminal(folder, tmp_path):
    name, bad = tmp_path / "a\x1b[2Jb.png", tmp_path / "c\rd.png"
    (folder / "a" / "0.png").rename(name)
    bad.touch()
    result = run("predict", name, bad, "--on-error", "skip", *LABELS)
    assert result.exit_code == Exit.SKIPPED and not {"\x1b", "\r"} & set(result.stdout)
    assert result.stdout.startswith(f"{tmp_path}/a\\x1b[2Jb.png\t")
    refused = run("predict", bad, *LABELS)
    assert not {"\x1b", "\r"} & set(refused.stderr)


def test_a_reader_that_ends_first_ends_the_command_quietly(monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", closed)
        with pytest.raises(SystemExit) as end:
            app(["--version"])
        closed.write("what is left goes nowhere")
    assert end.value.code == Exit.CLOSED == 141
    assert capfd.readouterr() == ("", "")


def test_errors_name_the_place_in_the_whole_input():
    message = "2 images cannot be read: image 0: 'my image 1.png' is bad. image 1 is None."
    with pytest.raises(InputValueError) as found, numbered(range(256, 258)):
        raise InputValueError(message)
    expected = "2 images cannot be read: image 256: 'my image 1.png' is bad. image 257 is None."
    assert str(found.value) == expected
    failure = NonFiniteOutputError("the network returned NaN (image 1, prompt 0).")
    failure.image = 1
    with pytest.raises(NonFiniteOutputError, match=r"\(image 9, prompt"), numbered([3, 9]):
        raise failure
    assert failure.image == 9


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_images_of_later_blocks_are_named_by_their_own_places(
    folder, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(running, "BLOCK", 2)
    paths = sorted(folder.rglob("*.png"))
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: len(content) // 2])  # its header is whole
    if command == "predict":
        arguments = [*paths, *LABELS]
    else:
        arguments = [folder, "--max-draws", 2, "--batch-size", 32]
    failed = run(command, *arguments, "--quiet")
    assert failed.exit_code == Exit.FAILED
    name = rf"'[^']*{re.escape(paths[3].name)}'"  # long paths are shortened
    assert re.search(f"image 3: {name}", failed.stderr)
    out = tmp_path / "out.json"
    skipped = run(command, *arguments, "--on-error", "skip", "--json", out, "--quiet")
    assert skipped.exit_code == Exit.SKIPPED
    reasons = [row["error"] for row in json.loads(out.read_text())["results"]]
    assert reasons[:3] == [None] * 3 and re.match(name, reasons[3])
