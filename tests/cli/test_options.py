"""``--config``: options from a file, and the settings that are written beside results."""

import json

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier.cli import Exit, app
from diffusion_classifier.datasets import load_scenes


@pytest.fixture
def pictures(tmp_path):
    for number, image in enumerate(load_scenes("test", n_samples=2).images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(2)]


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_a_file_gives_options_and_the_command_line_wins(pictures, tmp_path):
    config, out = tmp_path / "run.yaml", tmp_path / "out.json"
    labels = ["red digit", "salt, pepper", 'a "quoted" digit']
    config.write_text(
        yaml.safe_dump({
            "images": pictures, "labels": labels, "prompt": "a {}", "seed": 3, "top": 1,
            "pruner": "staged", "quiet": None, "batch_size": 32, "json": str(out),
        }).replace("quiet: null\n", "")
    )  # fmt: skip
    assert run("predict", "--config", config, "--seed", 4, "--quiet").exit_code == 0
    found = json.loads(out.read_text())
    assert found["labels"] == labels and found["seed"] == 4
    assert [len(row["labels"]) for row in found["results"]] == [1, 1]
    assert found["settings"]["pruner"] == "staged" and found["settings"]["prompt"] == ["a {}"]
    assert found["settings"]["batch-size"] == 32


def test_a_file_may_ask_for_quiet(pictures, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        yaml.safe_dump({"images": pictures, "labels": ["red", "blue"], "max-draws": 2})
    )
    assert run("predict", "--config", config).stdout.count("\n") == 2
    with config.open("a") as file:
        file.write("quiet: true\n")
    result = run("predict", "--config", config)
    assert result.exit_code == 0 and result.output == ""


def test_settings_beside_results_repeat_the_run(pictures, tmp_path):
    out, csv = tmp_path / "out.json", tmp_path / "table.csv"
    options = ["--labels", "red digit,blue digit", "--seed", 7, "--json", out, "--csv", csv]
    first = run("predict", *pictures, *options, "--batch-size", 8)
    assert first.exit_code == 0 and first.stdout == ""
    before = out.read_bytes()
    settings = tmp_path / "out.settings.yaml"
    assert settings.read_text() == (tmp_path / "table.settings.yaml").read_text()
    assert yaml.safe_load(settings.read_text()) == json.loads(before)["settings"]
    out.unlink()
    assert run("predict", "--config", settings).exit_code == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("modle: x", "unknown key 'modle'; do you mean 'model'?"),
        ("zzz: x", "unknown key 'zzz'; known are images, labels"),
        ("config: other.yaml", "unknown key 'config'"),
        ("labels: [yes, no]", "labels: True is no text; put it in quotes"),
        ("labels: [007, cat]", "labels: 7 is no text; put it in quotes"),
        ("labels: 1.5", "labels: 1.5 is no text; put it in quotes"),
        ("modle: x", "do you mean 'model'? See "),
        ("quiet: 1", "quiet: 1 must be true or false"),
        ("max-minutes: 1e9", "'--max-minutes'"),
        ("labels: {a: b}", "labels: {'a': 'b'} is no text"),
        ("top: [1, 2]", "top: [1, 2] must be one value"),
        ("top: many", "'--top'"),
        ("- a\n- b", "must hold lines such as"),
        ("labels: [", "cannot be read as YAML"),
    ],
)
def test_what_a_file_holds_is_checked(tmp_path, text, problem):
    config = tmp_path / "run.yaml"
    config.write_text(text)
    refused = run("predict", "--config", config)
    assert refused.exit_code == Exit.USAGE and problem in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert run("predict", "--config", tmp_path / "none.yaml").exit_code == Exit.USAGE


@pytest.mark.parametrize(
    "command", [command.callback.__name__ for command in app.registered_commands]
)
def test_every_option_has_help_and_every_command_reads_a_file(command):
    from typer.main import get_command

    params = get_command(app).commands[command].params
    assert [param.name for param in params if not param.help] == []
    assert "config" in [param.name for param in params]
