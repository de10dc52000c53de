"""Predictions from the shell with a classifier that was fitted before."""

import json

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.cli import Exit, app
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.hub import push_to_hub
from diffusion_classifier.pruners import RacingPruner
from tests.support.hub import local_hub

SCENES = load_scenes("test", n_samples=2).images


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with local_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(SCENES):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def clf():
    pruner = RacingPruner(max_draws=24)
    clf = DiffusionClassifier(prompts="a {} digit", pruner=pruner, random_state=7)
    return clf.fit(None, ["red", "blue", "black"])


def run(*arguments):
    command = ["predict", *map(str, arguments)]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def test_answers_are_those_of_the_saved_classifier(clf, pictures, tmp_path):
    clf.save(tmp_path / "saved")
    answers = tmp_path / "answers.json"
    run(pictures, "--classifier", tmp_path / "saved", "--json", answers, "--top", "3")
    found = json.loads(answers.read_text())
    expected = clf.predict_proba(SCENES)
    assert found["labels"] == ["black", "blue", "red"]
    assert (found["seed"], found["model"]) == (7, "embedded")
    for row, probabilities in zip(found["results"], expected, strict=True):
        by_label = dict(zip(row["labels"], row["probabilities"], strict=True))
        assert [by_label[label] for label in found["labels"]] == probabilities.tolist()
    settings = tmp_path / "answers.settings.yaml"
    kept = yaml.safe_load(settings.read_text())
    assert kept["classifier"] == str(tmp_path / "saved")
    assert not {"pruner", "seed", "labels", "device"} & set(kept)
    again = run("--config", settings)
    assert again.exit_code == Exit.ANSWERED
    assert json.loads(answers.read_text())["results"] == found["results"]


def test_a_classifier_of_the_hub(hub, clf, pictures):
    push_to_hub(clf, "owner/digits")
    commit = hub.repos["owner/digits"]["branches"]["main"]
    expected = [str(label) for label in clf.predict(SCENES)]
    for name in ("owner/digits", f"owner/digits@{commit}"):
        done = run(pictures, "--classifier", name)
        assert done.exit_code == Exit.ANSWERED
        assert [line.split("\t")[1] for line in done.stdout.splitlines()] == expected
    missing = run(pictures, "--classifier", "owner/digits@v2")
    assert missing.exit_code == Exit.USAGE
    assert "owner/digits has no revision 'v2'" in missing.stderr


@pytest.mark.parametrize(
    "option", [("--labels", "a,b"), ("--seed", "0"), ("--pruner", "racing"), ("--prompt", "a {}")]
)
def test_options_that_the_classifier_holds_are_refused(clf, pictures, tmp_path, option):
    done = run(pictures, "--classifier", tmp_path, *option)
    assert done.exit_code == Exit.USAGE
    assert f"--classifier holds what {option[0]} would set" in done.stderr


def test_a_folder_that_does_not_exist(pictures):
    done = run(pictures, "--classifier", "no/such/folder")
    assert done.exit_code == Exit.USAGE
    assert "no folder 'no/such/folder'" in done.stderr
