"""``evaluate --suite``, from the shell."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier.cli import Exit, app
from diffusion_classifier.cli.commands.compare import read_evaluation
from diffusion_classifier.datasets import load_scenes

SCENES = load_scenes("test", n_samples=8)
FAST = ["--pruner", "staged", "--max-draws", "24"]


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def tree(tmp_path):
    for number, (image, color) in enumerate(zip(SCENES.images, SCENES.color, strict=True)):
        (tmp_path / "tree" / color).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "tree" / color / f"{number}.png")
    (tmp_path / "t.json").write_text('{"pets": ["a {c} digit"]}')
    return tmp_path / "tree"


def test_a_suite_is_evaluated_beside_its_published_figure(tree, tmp_path):
    base = ["evaluate", "--suite", "pets", "--data", tree, "--templates", tmp_path / "t.json"]
    out, page, send = (tmp_path / name for name in ("o.json", "r.html", "s.json"))
    files = ["--json", out, "--report", page, "--send", send, "--memory", tmp_path / "store"]
    result = run(*base, *FAST, *files, "--limit", 6)
    assert result.exit_code == 0, result.output
    assert "Oxford-IIIT Pets: 6 images, default race: at most" in result.stderr
    assert "published              87.3 %" in result.stdout
    found, sent = read_evaluation(out), json.loads(send.read_text())
    assert found.n == 6 and found.accuracy.value >= 5 / 6
    assert sent["figures"]["accuracy"] == list(found.accuracy) and sent["complete"]
    assert str(tmp_path) not in send.read_text()
    assert page.read_text().lower().startswith("<!doctype html>")
    again = run(*base, *FAST, *files, "--limit", 6, "--quiet")
    assert again.exit_code == 0 and read_evaluation(out).accuracy == found.accuracy


def test_a_time_cap_ends_a_suite(tree, tmp_path):
    result = run("evaluate", "--suite", "cifar10", "--data", tree, "--max-minutes", 0.0005)
    assert result.exit_code == Exit.TIME and "stopped at the time cap" in result.stderr


def test_wrong_options_are_told(tree, tmp_path):
    for options, problem in (
        (["--suite", "pet"], "do you mean 'pets'? Suites are aircraft, cifar10"),
        (["--suite", "pets"], "timm/oxford-iiit-pet"),
        (["--suite", "pets", tree], "--suite and a folder exclude each other"),
        (["--suite", "pets", "--csv", tmp_path / "a.csv"], "--suite and --csv exclude"),
        ([tree, "--published"], "--published needs --suite NAME"),
        (["--suite", "pets", "--data", tree, "--templates", "none.json"], "does not exist"),
    ):
        refused = run("evaluate", *options)
        assert refused.exit_code == Exit.USAGE and problem in refused.stderr, refused.stderr
