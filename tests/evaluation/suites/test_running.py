"""Suites on local stand-ins: data sets of the same columns, trees of folders, the small model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import COLOR_NAMES, load_scenes
from diffusion_classifier.errors import InputValueError, MissingFileError
from diffusion_classifier.evaluation import evaluate
from diffusion_classifier.evaluation.suites import (
    SuiteResult,
    balanced,
    evaluate_suite,
    load_suite,
    prepare_suite,
    read_class_names,
    read_suite_images,
    read_templates,
)
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.race.engine import Engine
from diffusion_classifier.shortlist import ClipShortlist

SCENES = load_scenes("test", n_samples=14)
CLASSES = sorted(COLOR_NAMES)


def classifier(**options):
    return DiffusionClassifier(pruner=StagedPruner((4,), (2,), 12), verbose=0, **options)


@pytest.fixture
def templates(tmp_path):
    file = tmp_path / "templates.json"
    file.write_text(json.dumps({"vtab/pets": ["a {c} digit"], "cifar10": ["a {c} digit"]}))
    return file


@pytest.fixture
def tree(tmp_path):
    for number, (image, color) in enumerate(zip(SCENES.images, SCENES.color, strict=True)):
        (tmp_path / "tree" / "test" / color).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "tree" / "test" / color / f"{number}.png")
    return tmp_path / "tree"


@pytest.fixture
def saved(tmp_path):
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    rows = {"image": [Image.fromarray(image) for image in SCENES.images]}
    rows["label"] = [CLASSES.index(color) for color in SCENES.color]
    whole = datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows, features=features)})
    whole.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_tree_and_a_saved_data_set_give_the_same_figure(tree, saved, templates, tmp_path):
    said = []
    one = evaluate_suite(classifier(), "pets", tree, templates=templates, tell=said.append)
    two = evaluate_suite(classifier(), "pets", saved, templates=templates, tell=None)
    assert one.figure.value >= 13 / 14 and one.figure == two.figure
    assert one.published.figure == 87.3
    assert said[0].startswith("Oxford-IIIT Pets: 14 images, default race: at most ")
    assert "published              87.3 % (arXiv 2303.16203, table 1; read at " in said[1]
    assert "not comparable: 6 classes here, 37 in the paper" in said[1]
    assert "not checked" not in said[1]
    suite = replace(one.run.suite, published=replace(one.published, checked=False))
    unchecked = replace(one, run=replace(one.run, suite=suite))
    assert "diffusion-classifier.github.io; not checked), not comparable" in unchecked.summary()
    one.to_json(tmp_path / "send.json")
    sent = json.loads((tmp_path / "send.json").read_text())
    text = json.dumps(sent)
    assert str(tmp_path) not in text and ".png" not in text
    assert sent["suite"] == "pets" and sent["figures"]["accuracy"] == list(one.figure)
    assert sent["versions"].keys() >= {"torch", "diffusers", "transformers", "python"}
    assert "accuracy" in one.to_html(tmp_path / "report.html")


@pytest.fixture
def by_id(tmp_path, monkeypatch):
    """A repository of the Hub: parquet files of a split, under the data set's own id."""
    import datasets

    def make(images="image", labels="label"):
        suite = load_suite("pets")
        folder = tmp_path / suite.data_id / "data"
        folder.mkdir(parents=True)
        features = {images: datasets.Image(), labels: datasets.ClassLabel(names=CLASSES)}
        rows = {images: [Image.fromarray(image) for image in SCENES.images]}
        rows[labels] = [CLASSES.index(color) for color in SCENES.color]
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        data.to_parquet(folder / "test-00000-of-00001.parquet")
        return suite

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return make


def test_a_data_set_is_read_by_its_id(by_id, tree, templates):
    suite = by_id()
    assert suite.data_id.count("/") == 1
    one = evaluate_suite(classifier(), "pets", templates=templates, tell=None)
    two = evaluate_suite(classifier(), "pets", tree, templates=templates, tell=None)
    assert one.evaluation.n == 14 and one.figure == two.figure
    assert one.figure.value >= 13 / 14


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"images": "picture"}, "image"),
        ({"labels": "kind"}, "label"),
    ],
)
def test_a_data_set_without_a_column_names_it(by_id, columns, message):
    by_id(**columns)
    with pytest.raises(InputValueError, match=message):
        read_suite_images(load_suite("pets"))


def test_a_split_that_does_not_exist_is_named(by_id):
    suite = replace(by_id(), split="validation")
    with pytest.raises(InputValueError, match=r"'validation', cannot be loaded.*--data FOLDER"):
        read_suite_images(suite)


def test_a_second_run_asks_the_network_nothing(tree, templates, tmp_path, monkeypatch):
    options = {"templates": templates, "memory": tmp_path / "memory", "limit": 7}
    first = evaluate_suite(classifier(), "pets", tree, tell=None, **options)
    rows = []
    made = prepare_suite(classifier(), "pets", tree, **options)
    monkeypatch.setattr(Engine, "begin", lambda self, requests: rows.append(requests))
    again = evaluate(made.classifier, made.data.images, made.data.labels)
    assert rows == [] and again.accuracy == first.figure and again.n == 7


def test_samples_are_balanced_and_grow(tree):
    labels = np.array(["a"] * 50 + ["b"] * 5 + ["c"] * 20)
    small, large = balanced(labels, 9, seed=1), balanced(labels, 30, seed=1)
    assert [int((labels[small] == c).sum()) for c in "abc"] == [3, 3, 3]
    assert set(small) <= set(large) and len(large) == 30
    assert int((labels[large] == "b").sum()) == 5
    assert balanced(labels, 9, seed=1) == small != balanced(labels, 9, seed=2)
    assert balanced(labels, None, seed=0) == list(range(75))


def test_class_names_come_from_a_file_of_clip_benchmark(tree, tmp_path):
    file = tmp_path / "names.json"
    file.write_text(
        json.dumps({"oxford_pets": [f"{name} cat" for name in sorted(set(SCENES.color))]})
    )
    suite = load_suite("pets")
    names = read_class_names(file, ("pets", *suite.aliases))
    found = read_suite_images(suite, tree, names)
    assert found.classes == sorted({f"{color} cat" for color in SCENES.color})
    assert sorted(found.labels) == sorted(f"{color} cat" for color in SCENES.color)
    with pytest.raises(InputValueError, match="2 class names, but the data have 6 classes"):
        read_suite_images(suite, tree, ["a", "b"])


def test_files_of_another_form_are_refused(tmp_path):
    file = tmp_path / "f.json"
    for content, problem in (
        ('{"cars": ["a"]}', "has nothing for 'pets', only for"),
        ('{"pets": "a"}', "must be a list of texts"),
        ('{"pets": []}', "must be a list of texts"),
        ("3", "must hold names of data sets"),
        ("{", "cannot be read as JSON"),
    ):
        file.write_text(content)
        for read in (read_class_names, read_templates):
            with pytest.raises(InputValueError, match=problem):
                read(file, ("pets",))
    file.write_text('{"pets": ["a", "a"]}')
    with pytest.raises(InputValueError, match="'a' twice"):
        read_class_names(file, ("pets",))
    file.write_text('{"pets": {"cat": ["a cat", "my cat"]}}')
    assert read_templates(file, ("pets",)) == {"cat": ["a cat", "my cat"]}
    with pytest.raises(MissingFileError):
        read_templates(tmp_path / "none.json", ("pets",))


def test_names_of_classes_are_made_readable():
    import datasets

    def rows(names, image="image"):
        features = {image: datasets.Image(), "label": datasets.ClassLabel(names=names)}
        values = {image: [Image.new("RGB", (4, 4))] * len(names), "label": range(len(names))}
        return datasets.Dataset.from_dict(values, features=datasets.Features(features))

    names = ["tench, Tinca tinca", "crane", "crane2", "missile, rocket", "missile", "sea_snake"]
    found = read_suite_images(load_suite("imagenet"), rows(names))
    assert found.labels.tolist() == [
        "tench", "crane bird", "construction crane", "missile, rocket", "missile", "sea snake",
    ]  # fmt: skip
    kept = read_suite_images(load_suite("objectnet"), rows(["Alarm clock", "Air mattress", "Tie"]))
    assert kept.classes == ["Alarm clock", "necktie"] and len(kept.images) == 2
    with pytest.raises(InputValueError, match="no column 'image', only"):
        read_suite_images(load_suite("imagenet"), rows(names, image="picture"))
    with pytest.raises(InputValueError, match="--classnames F"):
        read_suite_images(load_suite("imagenet"), rows(["n01440764", "n01443537"]))


def test_class_names_follow_the_values_of_numbers(tmp_path):
    """Sorted as texts, class 10 would come before class 2, and get its name."""
    from datasets import Dataset

    suite, words = load_suite("flowers"), [f"flower {n}" for n in range(12)]
    picture = Image.new("RGB", (8, 8))
    for n in range(12):
        (tmp_path / str(n)).mkdir()
        picture.save(tmp_path / str(n) / "a.png")
    found = read_suite_images(suite, tmp_path, words)
    for path, label in zip(found.images, found.labels, strict=True):
        assert label == f"flower {Path(path).parent.name}"
    rows = Dataset.from_dict({suite.images[0]: [picture] * 12, suite.labels[0]: list(range(12))})
    assert read_suite_images(suite, rows, words).labels.tolist() == words
    for data in (tmp_path, rows):
        with pytest.raises(InputValueError, match=r"named by number, such as '0'.*classnames"):
            read_suite_images(suite, data)


@pytest.mark.parametrize("labels", [["a", None, "b"], [0, -1, 1]])
def test_a_row_without_a_label_is_no_class(labels):
    from datasets import Dataset

    suite = load_suite("flowers")
    pictures = [Image.new("RGB", (8, 8))] * 3
    rows = Dataset.from_dict({suite.images[0]: pictures, suite.labels[0]: labels})
    with pytest.raises(InputValueError, match="row 1 of suite 'flowers' has no label"):
        read_suite_images(suite, rows)


def test_data_that_cannot_be_reached_name_the_id_and_the_way_out():
    with pytest.raises(InputValueError, match="timm/oxford-iiit-pet") as error:
        evaluate_suite(None, "pets")
    assert "--data FOLDER" in str(error.value)


def test_a_report_to_send_holds_no_path_of_a_shortlist(tree):
    """Only the last part of a folder's path is told, as of the network's."""
    found = evaluate_suite(None, "stl10", tree, tell=None, limit=1)
    proposer = ClipShortlist(tree / "my-clip", 3)
    run = replace(found.run, classifier=DiffusionClassifier(shortlist=proposer))
    settings = {**found.evaluation.settings, "shortlist": repr(proposer)}
    sent = SuiteResult(run, replace(found.evaluation, settings=settings)).to_dict()
    assert str(tree) not in json.dumps(sent)
    assert sent["settings"]["shortlist"] == "ClipShortlist(k=3, path_or_id='my-clip')"


def test_winoground_counts_pairs():
    import datasets

    colors, digits = SCENES.color, SCENES.digit
    images = [Image.fromarray(image) for image in SCENES.images]
    pairs = [(i, i + 1) for i in range(0, 8, 2)]
    assert all((colors[i], digits[i]) != (colors[j], digits[j]) for i, j in pairs)
    caption = [f"a {color} {digit}" for color, digit in zip(colors, digits, strict=True)]
    rows = {
        f"{kind}_{k}": [source[pair[k]] for pair in pairs]
        for kind, source in (("image", images), ("caption", caption))
        for k in (0, 1)
    }
    rows = datasets.Dataset.from_dict(rows).cast_column("image_0", datasets.Image())
    rows = rows.cast_column("image_1", datasets.Image())
    clf = DiffusionClassifier(pruner=NoPruning(8), verbose=0)
    found = evaluate_suite(clf, "winoground", rows, published=True, limit=2, tell=None)
    assert len(found.scores) == 2 and found.text.value == 1.0
    assert found.group.value <= min(found.text.value, found.image.value)
    assert found.run.expected.evaluations == 2 * 2 * 2 * 200
    assert found.to_dict()["figures"]["n"] == 2
    assert "published              38.5 %" in found.summary()
