"""Suites as files: what ships, what is refused, and that schedules are the published ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.errors import InputFileError, InputValueError
from diffusion_classifier.evaluation.suites import load_suite, prepare_suite, suite_names
from diffusion_classifier.evaluation.suites.suite import FOLDER
from diffusion_classifier.noise import NoiseSchedule
from tests.support import published
from tests.support.pipelines import tiny_sd

NAMES = [
    "aircraft", "cifar10", "cifar100", "flowers", "food", "imagenet", "imagenet100", "objectnet",
    "pets", "stl10", "winoground",
]  # fmt: skip
# Rows of an image, by hand: new draws of each stage times the classes that are left. Stages of 20,
# 50, 100 and 500 take 20, 50, 80 and 350 new ones; those of ImageNet 50, 100, 400 and 450.
ROWS = {
    "cifar10": 50 * 10 + 450 * 5,
    "stl10": 100 * 10 + 400 * 5,
    "pets": 25 * 37 + 225 * 5,
    "flowers": 20 * 102 + 50 * 20 + 80 * 10 + 350 * 5,
    "food": 20 * 101 + 50 * 20 + 80 * 10 + 350 * 5,
    "aircraft": 20 * 100 + 50 * 20 + 80 * 10 + 350 * 5,
    "cifar100": 20 * 100 + 50 * 20 + 80 * 10 + 350 * 5,
    "imagenet": 50 * 1000 + 100 * 500 + 400 * 50 + 450 * 10,
    "winoground": 200 * 2,
}


def plain_grids(stages):
    """New timesteps of each stage, as the published script takes them."""
    step = 1000 // stages[-1]
    grid, taken, rounds = list(range(step // 2, 1000, step))[: stages[-1]], [], []
    for n in stages:
        stride = len(grid) // n
        rounds.append([t for t in grid[stride // 2 :: stride][:n] if t not in taken])
        taken += rounds[-1]
    return rounds


def test_all_suites_ship():
    assert suite_names() == NAMES
    for name in NAMES:
        suite = load_suite(name)
        assert suite.name == name and suite.n_images > 0
        assert suite.published.keep[-1] == 1 and suite.published.image_size == 512
    assert len(load_suite("objectnet").kept) == 113 == load_suite("objectnet").n_classes


@pytest.mark.parametrize("name", NAMES)
def test_schedules_are_the_published_ones(name):
    paper = load_suite(name).published
    rounds = [d.timesteps.tolist() for d in paper.sampler().rounds(NoiseSchedule.flow(1000), 0)]
    grids = plain_grids(paper.stages)
    assert rounds == grids
    n_classes = load_suite(name).n_classes
    counts = [n_classes, *(min(n_classes, k) for k in paper.keep[:-1])]
    by_hand = sum(len(r) * k for r, k in zip(grids, counts, strict=True))
    assert paper.rows(n_classes) == by_hand == ROWS.get(name, by_hand)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.RandomState(0)
    found = rng.randint(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    for number, name in enumerate(("cat", "dog", "eel", "fox")):
        (tmp_path / "tree" / name).mkdir(parents=True)
        Image.fromarray(found[number]).save(tmp_path / "tree" / name / "0.png")
    return tmp_path / "tree", found


def test_a_published_search_takes_the_draws_of_plain_code(pictures):
    folder, images = pictures
    pipeline = tiny_sd()
    suite = load_suite("cifar10")
    stages, keep = (4, 20), (2, 1)
    paper = replace(suite.published, stages=stages, keep=keep, image_size=16)
    clf = DiffusionClassifier(pipeline, device="cpu", verbose=0)
    made = prepare_suite(clf, replace(suite, published=paper), folder, published=True, seed=3)
    table = made.classifier.errors(made.data.images)
    prompts = [made.classifier.prompts_[name][0] for name in made.data.classes]
    assert prompts[0] == "a blurry photo of a cat" and prompts[2] == "a blurry photo of an eel"
    answers = made.classifier.predict(made.data.images)
    for number, picture in enumerate(images):
        errors, winner = published.classify(
            pipeline, picture, prompts, stages, keep, made.classifier.seed_, loss="l1"
        )
        assert answers[number] == made.data.classes[winner]
        for row, at in errors.items():
            kept = ~np.isnan(table.errors[number, row])
            assert table.timesteps[kept].tolist() == list(at)
            np.testing.assert_allclose(
                table.errors[number, row][kept], list(at.values()), rtol=1e-4
            )
    assert made.expected.evaluations == 4 * (4 * 4 + 16 * 2) == int(table.n_evaluations.sum())
    assert torch.is_grad_enabled()


def edited(tmp_path, change):
    values = yaml.safe_load((FOLDER / "pets.yaml").read_text())
    change(values)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_a_file_of_the_users_own_is_read(tmp_path):
    suite = load_suite(edited(tmp_path, lambda v: v["data"].update(n_classes=3)))
    assert suite.name == "mine" and suite.n_classes == 3


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda v: v.update(code="x"), "suite 'mine.yaml' has an unknown key 'code'"),
        (lambda v: v["data"].pop("id"), "data has no 'id'"),
        (lambda v: v["data"].update(n_images="many"), "data.n_images='many' must be"),
        (lambda v: v["data"].update(images=["a", "b"]), "data.images has 2 columns"),
        (lambda v: v["published"].update(keep=[5]), "must have the same length"),
        (lambda v: v["published"].update(keep=[1, 5]), "must decrease and end with 1"),
        (lambda v: v["published"].update(stages=[250, 25]), "stages must increase"),
        (lambda v: v["published"].update(loss="l3"), "published.loss='l3' is not known"),
        (lambda v: v.pop("templates"), "has no 'templates'"),
        (lambda v: v.update(classes={"rename": {"a": 1}}), "both must be texts"),
    ],
)
def test_wrong_files_are_refused_by_key(tmp_path, change, problem):
    with pytest.raises(InputValueError) as error:
        load_suite(edited(tmp_path, change))
    assert problem in str(error.value)


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(InputValueError, match="do you mean 'pets'") as error:
        load_suite("pet")
    assert all(name in str(error.value) for name in NAMES)
    with pytest.raises(InputFileError, match="does not exist"):
        load_suite(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputValueError, match="cannot be read as YAML"):
        load_suite(tmp_path / "bad.yaml")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(InputValueError, match="cannot be read as YAML"):
        load_suite(tmp_path / "code.yaml")


def test_published_figures_are_those_of_the_authors_tables():
    theirs = {  # https://diffusion-classifier.github.io
        "food": 77.7,
        "cifar10": 88.5,
        "aircraft": 26.4,
        "pets": 87.3,
        "flowers": 66.3,
        "stl10": 95.4,
        "imagenet": 61.4,
        "objectnet": 43.4,
        "winoground": 38.5,
    }
    papers = {name: load_suite(name).published for name in suite_names()}
    ours = {name: paper.figure for name, paper in papers.items() if paper.figure is not None}
    assert ours == theirs
    assert all(papers[name].checked for name in theirs)
