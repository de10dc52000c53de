"""``evaluate`` and ``compare``: figures of labelled images, from the shell."""

import csv
import json
import signal

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.cli import Exit, app, running
from diffusion_classifier.cli.commands.compare import read_evaluation
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.evaluation import FIELDS, Evaluation, compare, evaluate
from diffusion_classifier.pruners import StagedPruner
from diffusion_classifier.race.engine import Engine

SCENES = load_scenes("test", n_samples=8)
OPTIONS = ["--prompt", "a {} digit", "--pruner", "staged", "--max-draws", "24", "--quiet"]


@pytest.fixture
def folder(tmp_path):
    for number, (image, color) in enumerate(zip(SCENES.images, SCENES.color, strict=True)):
        place = tmp_path / "photos" / color
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return tmp_path / "photos"


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def expected(images, labels, names=None, **options):
    clf = DiffusionClassifier(
        prompts=["a {} digit"], pruner=StagedPruner(max_draws=24), random_state=0
    )
    clf.fit(None, sorted(set(SCENES.color)))
    return evaluate(clf, images, labels, names=names, **options)


def test_a_folder_is_evaluated(folder, tmp_path):
    out, table, page = (tmp_path / name for name in ("a.json", "a.csv", "a.html"))
    files = ["--json", out, "--csv", table, "--report", page]
    result = run("evaluate", folder, *OPTIONS[:-1], *files)
    assert result.exit_code == 0, result.output
    paths = sorted(map(str, folder.rglob("*.png")), key=lambda path: path.split("/")[-2:])
    labels = [path.split("/")[-2] for path in paths]
    found, same = read_evaluation(out), expected(paths, labels)
    assert [record["image"] for record in found.records] == paths
    assert found.classes == sorted(set(SCENES.color))
    assert [record["label"] for record in found.records] == [r["label"] for r in same.records]
    assert found.accuracy == same.accuracy and found.evaluations == same.evaluations
    assert found.log_loss.value == pytest.approx(same.log_loss.value, rel=1e-4)
    rows = list(csv.DictReader(table.open()))
    assert [row["true"] for row in rows] == labels
    text = page.read_text(encoding="utf-8")
    assert text.lower().startswith("<!doctype html>") and "http://" not in text
    assert sorted(path.name for path in tmp_path.glob("*.yaml")) == ["a.settings.yaml"]


def test_figures_are_printed(folder):
    result = run("evaluate", folder, *OPTIONS[:-1], "--limit", 2)
    n_classes = len(set(SCENES.color))
    assert result.stdout.splitlines()[0].split() == ["images", "2", "of", f"{n_classes}", "classes"]
    assert "100%, 2/2 images" in result.stderr


def test_limits_and_shards_are_parts_of_the_same_images(folder, tmp_path):
    whole, parts = tmp_path / "whole.json", tmp_path / "parts"
    parts.mkdir()
    run("evaluate", folder, *OPTIONS, "--limit", 5, "--json", whole)
    for number in (1, 2):
        shard = ["--shard", f"{number}/2", "--json", parts / f"{number}.json"]
        assert run("evaluate", folder, *OPTIONS, "--limit", 5, *shard).exit_code == 0
    one, joined = read_evaluation(whole), read_evaluation(parts)
    assert len(one.records) == 5
    assert {r["image"]: r["label"] for r in one.records} == {
        r["image"]: r["label"] for r in joined.records
    }
    out = tmp_path / "c.json"
    assert run("compare", whole, parts, "--json", out).exit_code == 0
    summary = json.loads(out.read_text())["summary"]
    assert summary["n"] == summary["n_same"] == 5 and summary["p_value"] == 1.0


def test_a_hugging_face_data_set_is_evaluated(tmp_path):
    import datasets

    names = sorted(set(SCENES.color))
    features = datasets.Features(
        {"picture": datasets.Image(), "color": datasets.ClassLabel(names=names)}
    )
    rows = {"picture": [Image.fromarray(image) for image in SCENES.images[:4]]}
    rows["color"] = [names.index(color) for color in SCENES.color[:4]]
    saved = datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows, features=features)})
    saved.save_to_disk(str(tmp_path / "set"))
    out = tmp_path / "out.json"
    assert run("evaluate", "--dataset", tmp_path / "set", *OPTIONS, "--json", out).exit_code == 0
    found = read_evaluation(out)
    assert [record["image"] for record in found.records] == [0, 1, 2, 3]
    assert [record["true"] for record in found.records] == SCENES.color[:4].tolist()
    for options, problem in (
        (["--split", "train"], "split 'train', cannot be loaded"),
        (["--label-column", "colour"], "--label-column 'colour' is no column"),
        ([tmp_path], "either a folder with one sub-folder per class, or --dataset"),
    ):
        refused = run("evaluate", "--dataset", tmp_path / "set", *options)
        assert refused.exit_code == Exit.USAGE and problem in refused.stderr


def test_what_cannot_be_read_is_an_error_or_skipped(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BLOCK", 1)  # blocks of which nothing can be read
    bad = sorted(folder.rglob("*.png"))[1]
    bad.write_bytes(b"no picture")
    refused = run("evaluate", folder, *OPTIONS)
    assert refused.exit_code == Exit.FAILED and bad.name in refused.stderr
    out = tmp_path / "out.json"
    files = ["--on-error", "skip", "--json", out, "--report", tmp_path / "out.html"]
    assert run("evaluate", folder, *OPTIONS, *files).exit_code == Exit.SKIPPED
    found = read_evaluation(out)
    assert found.n == 7 and found.n_skipped == 1
    assert [r["image"] for r in found.records if r["error"]] == [str(bad)]
    assert run("evaluate", tmp_path / "none").exit_code == Exit.USAGE


def test_an_interrupt_keeps_what_was_answered_and_resumes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "BLOCK", 3)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    work, steps = Engine.begin, []

    def stop(self, requests):
        steps.append(sum(request.n_rows for request in requests))
        if len(steps) == 12:
            signal.raise_signal(signal.SIGINT)
        return work(self, requests)

    out = tmp_path / "out.json"
    options = [*OPTIONS, "--batch-size", 8, "--memory", tmp_path / "store", "--json", out]
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "begin", stop)
        stopped = run("evaluate", folder, *options)
    signal.signal(signal.SIGINT, handler)
    assert stopped.exit_code == Exit.INTERRUPTED
    document = json.loads(out.read_text())
    n_done = len(document["results"])
    assert 0 < n_done < 8 and not document["complete"]
    assert f"interrupted: {n_done} of 8 images; run it again" in stopped.stderr
    first = read_evaluation(out)
    assert run("evaluate", folder, *options).exit_code == 0
    after = {r["image"]: r["label"] for r in read_evaluation(out).records}
    assert len(after) == 8
    assert all(after[r["image"]] == r["label"] for r in first.records)


def write_evaluation(path, found, command="evaluate"):
    values = found.to_dict()
    results = values.pop("images")
    path.write_text(json.dumps({"command": command, "summary": values, "results": results}))


def test_runs_are_compared_and_others_refused(tmp_path):
    rng = np.random.default_rng(0)

    def made(share):
        records = [
            dict.fromkeys(FIELDS) | {
                "image": f"{i}.png", "true": "a", "label": "a" if right else "b",
                "probability": 0.8, "rank": 1 if right else 2, "log_loss": 0.2, "brier": 0.1,
                "n_evaluations": int(rng.integers(50, 100)), "resolved": True, "error": None,
            }
            for i, right in enumerate(rng.random(200) < share)
        ]  # fmt: skip
        return Evaluation(records, ["a", "b"], {}, {}, top=2, seconds=2.0)

    a, b = made(0.6), made(0.9)
    places = tmp_path / "a.json", tmp_path / "b.json"
    for place, found in zip(places, (a, b), strict=True):
        write_evaluation(place, found)
    result = run("compare", *places)
    assert result.exit_code == 0 and result.stdout.strip() == compare(a, b).summary()
    for text, problem in (
        ("{", "is no JSON"),
        ('{"command": "predict"}', "was not written by evaluate"),
        ('{"command": "evaluate", "summary": {}}', "bad.json"),
        ('{"command": "evaluate", "summary": [], "results": []}', "bad.json"),
    ):
        (tmp_path / "bad.json").write_text(text)
        refused = run("compare", places[0], tmp_path / "bad.json")
        assert refused.exit_code == Exit.USAGE and problem in refused.stderr
    (tmp_path / "empty").mkdir()
    for place in ("empty", "none.json"):
        assert run("compare", places[0], tmp_path / place).exit_code == Exit.USAGE
