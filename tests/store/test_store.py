"""ErrorStore: what a store holds, as numbers and as a table, and its care."""

import numpy as np
import pytest

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import DiffusersBackend, GaussianBackend
from diffusion_classifier.errors import InputValueError, NotAFolderError
from diffusion_classifier.pruners import NoPruning, RacingPruner
from diffusion_classifier.store import ErrorStore, questions
from tests.support import stores
from tests.support.pipelines import tiny_sd
from tests.support.stores import X, classifier


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def test_an_empty_store(folder):
    store = ErrorStore(folder)
    assert (len(store), store.info()) == (0, (0, 0, 0, 0, 0, 0, []))
    assert store.verify() == (0, [])
    with pytest.raises(InputValueError, match="the store has no model"):
        store.table()
    assert not folder.exists()
    folder.touch()
    with pytest.raises(NotAFolderError):
        ErrorStore(folder)


def test_what_a_store_holds(folder):
    classifier(folder, pruner=NoPruning(8)).errors(X)
    classifier(folder, pruner=NoPruning(10), loss="l1").errors(X[:4] + 1)
    store = ErrorStore(folder)
    info = store.info()
    assert len(store) == info.images == len(X) + 4
    assert (info.prompts, info.draws, info.files) == (3, 10, 1)
    assert info.errors == len(X) * 3 * 8 + 4 * 3 * 10 == store.verify().errors
    assert info.bytes == sum(path.stat().st_size for path in folder.iterdir())
    found = {model["made_by"]["loss"]: model for model in info.models}
    assert found["l1"]["errors"] == 4 * 3 * 10
    assert found["l2"]["made_by"]["name"] == "toy network"


def test_pages_of_images(folder, monkeypatch):
    classifier(folder, pruner=NoPruning(2)).errors(X)
    monkeypatch.setattr(questions, "_IMAGES_PER_PAGE", 5)
    assert len(ErrorStore(folder)) == len(X)
    assert len(ErrorStore(folder).table()) == len(X)


def test_a_table_of_some_images_and_prompts(folder):
    full = classifier(folder, pruner=NoPruning(8)).errors(X)
    table = ErrorStore(folder).table(X[3:7], prompts=["class 2", "class 0"])
    np.testing.assert_array_equal(table.errors, full.errors[3:7, [2, 0]])
    assert table.prompts == ("class 2", "class 0")
    assert (table.seed, table.made_by) == (full.seed, full.made_by)
    for name in ("timesteps", "density", "round_of", "antithetic"):
        np.testing.assert_array_equal(getattr(table, name), getattr(full, name))
    with pytest.raises(
        InputValueError, match="no errors of the prompt 'class 5'; it has 3 prompts"
    ):
        ErrorStore(folder).table(prompts=["class 5"])
    with pytest.raises(InputValueError, match="no errors of this model with seed=3"):
        ErrorStore(folder).table(seed=3)


def test_a_table_of_a_raced_store(folder, tmp_path):
    raced = classifier(folder, pruner=RacingPruner(max_draws=60)).errors(X[:6:2])
    table = ErrorStore(folder).table(X[:6:2])
    np.testing.assert_array_equal(table.errors, raced.errors)
    np.testing.assert_array_equal(table.certificate.n_draws, raced.certificate.n_draws)
    assert ErrorStore(folder).info().draws == raced.certificate.n_draws.max()
    ErrorStore(folder).to_parquet(tmp_path / "table", X[:6:2])
    again = ErrorTable.from_parquet(tmp_path / "table")
    np.testing.assert_array_equal(again.errors, raced.errors)


def test_images_that_lack_a_prompt_are_skipped(folder):
    classifier(folder, pruner=NoPruning(4)).errors(X)
    classifier(folder, pruner=NoPruning(4), labels=["a", "e"]).errors(X[:5])
    table = ErrorStore(folder).table(X)
    assert [image for image, _ in table.skipped] == list(range(5, len(X)))
    assert "lacks" in table.skipped[0][1]
    assert len(ErrorStore(folder).table(X, prompts=["class 0", "class 1"]).skipped) == 0
    with pytest.raises(InputValueError, match="no image of 3 has errors of all"):
        ErrorStore(folder).table(X[6:9])


def test_pictures_are_found_by_their_pixels(folder):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    options = {"pruner": NoPruning(4), "random_state": 0, "memory": folder}
    clf = DiffusionClassifier(DiffusersBackend(tiny_sd()), **options).fit(None, ["cat", "dog"])
    full = clf.errors(pictures)
    table = ErrorStore(folder).table(list(pictures[1:]))
    np.testing.assert_array_equal(table.errors, full.errors[1:])
    assert table.prompts == ("a photo of a cat", "a photo of a dog")
    latents = clf.encode(pictures)
    clf.errors(latents)
    np.testing.assert_array_equal(ErrorStore(folder).table(latents).errors, full.errors)


def test_exact_backends_keep_their_precision(folder):
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(20, 2)), np.arange(20) % 2
    options = {"pruner": NoPruning(4), "random_state": 0}
    scratch = DiffusionClassifier(GaussianBackend(), **options).fit(rows, y).errors(rows)
    clf = DiffusionClassifier(GaussianBackend(), memory=folder, **options).fit(rows, y)
    clf.errors(rows[:7])
    found = clf.errors(rows)
    assert found.errors.dtype == scratch.errors.dtype == np.float64
    assert stores.same(found, scratch)
    assert stores.same(clf.errors(rows), scratch)
    assert ErrorStore(folder).info().errors == 20 * 2 * 4


def test_merging(folder, tmp_path, monkeypatch):
    first, second = tmp_path / "one", tmp_path / "two"
    classifier(first, pruner=NoPruning(8)).errors(X[:9])
    classifier(second, pruner=NoPruning(8), labels=["c", "d"]).errors(X[5:])
    store = ErrorStore(folder)
    assert store.merge(ErrorStore(first)) == 9 * 3
    assert store.merge(second) == 11 * 2
    assert store.merge(second) == 11 * 2  # what is there already stays
    assert store.info().errors == 8 * (9 * 3 + 11 * 2) - 8 * 4  # class c of four images is in both
    counter = stores.counted(monkeypatch)
    classifier(folder, pruner=NoPruning(8)).errors(X[:9])
    assert int(counter) == 0
    with pytest.raises(InputValueError, match="cannot be merged with itself"):
        store.merge(folder)


def test_pruning_a_model(folder):
    classifier(folder, pruner=NoPruning(8)).errors(X)
    classifier(folder, pruner=NoPruning(8), loss="l1").errors(X[:4] + 1)
    store = ErrorStore(folder)
    before = store.info()
    number = next(m["id"] for m in before.models if m["made_by"]["loss"] == "l2")
    with pytest.raises(InputValueError, match="several models"):
        store.table()
    with pytest.raises(InputValueError, match="no such model"):
        store.prune(model="other")
    assert store.prune(model=number[:6]) == len(X) * 3 * 8
    after = store.info()
    assert (after.images, after.errors, len(after.models)) == (4, 4 * 3 * 8, 1)
    assert after.bytes <= before.bytes
    assert store.prune(model="toy network") == 4 * 3 * 8
    assert len(store) == 0
