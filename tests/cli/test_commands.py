"""``info``, ``cost`` and ``explain``, and the one schema of all that ``--json`` writes."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier import DiffusionClassifier, __version__
from diffusion_classifier.cli import Exit, app
from diffusion_classifier.cli.commands.cost import as_time
from diffusion_classifier.cli.outputs import KEYS
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.explaining import explain
from diffusion_classifier.pruners import RacingPruner
from tests.support.original_names import single_file
from tests.support.pipelines import tiny_sd

SCENE = load_scenes("test", n_samples=1).images[0]
LABELS = ["red digit", "blue digit"]


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(SCENE).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_info_describes_a_model(tmp_path):
    pipeline = tiny_sd("v_prediction")
    pipeline.save_pretrained(tmp_path / "model")
    out = tmp_path / "info.json"
    assert run("info", tmp_path / "model", "--json", out).exit_code == 0
    found = json.loads(out.read_text())["summary"]
    assert (found["pipeline"], found["family"]) == ("StableDiffusionPipeline", "StableDiffusion")
    assert found["prediction_type"] == "v_prediction" and found["reads"] == "text"
    n = sum(p.numel() for p in pipeline.unet.parameters())
    assert found["parameters"]["unet"] == n
    total = sum(found["parameters"].values())
    assert found["memory_bytes"] == {
        "float32": 4 * total, "float16": 2 * total, "bfloat16": 2 * total,
    }  # fmt: skip
    backend = DiffusionClassifier(str(tmp_path / "model")).fit(None, ["cat", "dog"]).backend_
    assert found["identity"] == backend.identity()
    assert found["schedule"]["n_timesteps"] == backend.schedule.n_timesteps
    text = run("info", tmp_path / "model").stdout
    assert "v_prediction" in text and f"unet {n / 1e6:,.1f}" in text
    refused = run("info", tmp_path / "none")
    assert refused.exit_code == Exit.USAGE and refused.stderr.count("\n") == 1


def test_cost_is_what_the_estimator_says(picture, tmp_path):
    out = tmp_path / "cost.json"
    options = ["--labels", ",".join(LABELS), "--max-draws", 10]
    assert run("cost", "-n", 1000, *options, "--json", out).exit_code == 0
    found = json.loads(out.read_text())["summary"]
    assert (found["n_images"], found["n_classes"]) == (1000, 2)
    assert found["max_evaluations"] == 1000 * 2 * 10 and found["max_seconds"] > 0
    printed = run("cost", picture, *options).stdout
    assert printed.startswith("1 images, 2 classes: at most 20 evaluations, ")
    assert run("cost", *options).exit_code == Exit.USAGE
    both = run("cost", "-n", 5, picture, *options)
    assert both.exit_code == Exit.USAGE and "not both" in both.stderr
    assert [as_time(s) for s in (3, 90, 5400, 2 * 86400)] == [
        "3.0 seconds", "1.5 minutes", "1.5 hours", "2.0 days",
    ]  # fmt: skip


def test_explain_draws_the_evidence(picture, tmp_path):
    out, values = tmp_path / "why.png", tmp_path / "why.json"
    options = ["--labels", ",".join(LABELS), "--max-draws", 8]
    result = run("explain", picture, *options, "-o", out, "--json", values)
    assert result.exit_code == 0
    assert min(Image.open(out).size) > 200
    clf = DiffusionClassifier(pruner=RacingPruner(max_draws=8), random_state=0).fit(None, LABELS)
    nats, error = explain(clf, SCENE, *LABELS)
    found = json.loads(values.read_text())["summary"]
    np.testing.assert_allclose(found["map"], nats, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found["standard_error"], error, rtol=1e-3, atol=1e-3)
    assert found["nats"] == pytest.approx(np.sum(found["map"]))
    assert (found["a"], found["b"]) == tuple(LABELS)
    assert (tmp_path / "why.settings.yaml").is_file()
    for arguments, problem, code in (
        ([picture, "--labels", "a,b,c", "-o", out], "compares two classes, but 3", Exit.USAGE),
        ([picture, "--labels", "a,b", "-o", "why.bmp"], "must end in one of .png", Exit.USAGE),
        ([tmp_path / "no.png", "--labels", "a,b", "-o", out], "does not exist", Exit.FAILED),
    ):
        refused = run("explain", *arguments)
        assert refused.exit_code == code and problem in refused.stderr


def test_a_model_may_be_one_file(picture, tmp_path):
    file = single_file(tiny_sd(), tmp_path / "model.safetensors")
    assert "StableDiffusionPipeline" in run("info", file).stdout
    options = ["--labels", ",".join(LABELS), "--max-draws", 2, "--json", "-"]
    found = json.loads(run("predict", picture, "--model", file, *options).stdout)
    assert found["model"] == str(file) and found["results"][0]["label"] in LABELS


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "{picture}", "--labels", ",".join(LABELS), "--max-draws", 4),
        ("cost", "-n", 2, "--labels", ",".join(LABELS), "--max-draws", 4),
        ("info",),
    ],
)
def test_json_has_one_schema(arguments, picture):
    arguments = [str(argument).format(picture=picture) for argument in arguments]
    result = run(*arguments, "--json", "-")
    found = json.loads(result.stdout)
    assert tuple(found) == KEYS
    assert found["schema"] == 1 and found["command"] == arguments[0]
    assert found["version"] == __version__ and found["model"] == "embedded"
    assert found["complete"] is True and isinstance(found["results"], list)
    assert isinstance(found["settings"], dict)
