"""Downloads: the same answers to the bit, from the Hub or the cache, and what is refused."""

import os
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend, clear_model_cache
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import (
    DamagedFileError,
    InputFileError,
    InputValueError,
    MissingFileError,
)
from diffusion_classifier.hub import from_hub, push_to_hub
from diffusion_classifier.pruners import NoPruning, RacingPruner
from tests.support.pipelines import saved, tiny_sd
from tests.support.saved_folders import edit, put, read_state, written

REPO = "owner/digits"
SCENES = load_scenes("test", n_samples=4)
FILES = ("classifier.json", "tensors.safetensors")
RNG = np.random.default_rng(1)


class Trap:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def clf():
    pruner = RacingPruner(max_draws=24)
    clf = DiffusionClassifier(prompts="a {} digit", pruner=pruner, calibrator=3.0, random_state=0)
    return clf.fit(None, ["red", "blue", "green"])


def snapshot(cache, files, repo_id=REPO, commit="0" * 40, ref="main"):
    """Lay out the cache of huggingface_hub: files as blobs, links to them, a ref to a commit."""
    root = cache / f"models--{repo_id.replace('/', '--')}"
    folder = root / "snapshots" / commit
    for part in (root / "blobs", root / "refs", folder):
        part.mkdir(parents=True, exist_ok=True)
    for number, (name, content) in enumerate(files.items()):
        (root / "blobs" / str(number)).write_bytes(content)
        (folder / name).symlink_to(f"../../blobs/{number}")
    (root / "refs" / ref).write_text(commit)
    return folder


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_answers_are_equal_to_the_bit(hub, clf):
    push_to_hub(clf, REPO)
    loaded = from_hub(REPO)
    expected = clf.predict_log_proba(SCENES.images)
    np.testing.assert_array_equal(loaded.predict_log_proba(SCENES.images), expected)
    assert loaded.get_params()["calibrator"] == 3.0
    asked = {path for method, path in hub.requests if method == "GET" and "/resolve/" in path}
    assert {path.rpartition("/")[2] for path in asked} == set(FILES)


def test_what_was_learned_comes_along(tmp_path):
    written(tmp_path / "saved")
    snapshot(tmp_path / "cache", contents(tmp_path / "saved"))
    loaded = from_hub(REPO, cache_dir=tmp_path / "cache", local_files_only=True)
    X = RNG.normal(size=(20, 2))
    expected = DiffusionClassifier.load(tmp_path / "saved").predict_log_proba(X)
    np.testing.assert_array_equal(loaded.predict_log_proba(X), expected)


def test_a_network_of_the_hub_is_loaded_from_there(hub, tmp_path):
    root = tmp_path / "model"
    saved(tiny_sd(), root)
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    hub.commit("owner/model", files)
    clear_model_cache()
    images = RNG.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    clf = DiffusionClassifier("owner/model", pruner=NoPruning(4), random_state=0).fit(
        None, ["cat", "dog"]
    )
    push_to_hub(clf, REPO)
    card = hub.files(REPO)["README.md"].decode()
    assert "\nbase_model: owner/model\n" in card
    assert "[owner/model](https://huggingface.co/owner/model)" in card
    assert sum(map(len, hub.files(REPO).values())) < 60_000  # no weights
    clear_model_cache()
    loaded = from_hub(REPO)
    np.testing.assert_array_equal(loaded.predict_proba(images), clf.predict_proba(images))
    clear_model_cache()


def test_the_commit_is_kept_and_can_be_asked_for(hub, clf, tmp_path):
    push_to_hub(clf, REPO)
    first = hub.repos[REPO]["branches"]["main"]
    push_to_hub(clf.fit(None, ["white", "black"]), REPO)
    latest = from_hub(REPO)
    assert latest.hub_ == {"repo_id": REPO, "revision": hub.repos[REPO]["branches"]["main"]}
    earlier = from_hub(REPO, revision=first)
    assert earlier.hub_["revision"] == first != latest.hub_["revision"]
    assert earlier.classes_.tolist() == ["blue", "green", "red"]

    earlier.save(tmp_path / "saved")
    assert DiffusionClassifier.load(tmp_path / "saved").hub_ == earlier.hub_
    assert not hasattr(clone(earlier), "hub_")
    assert not hasattr(earlier.fit(None, ["white", "black"]), "hub_")
    assert not hasattr(clf, "hub_")


def test_the_cache_is_used_without_the_hub(hub, clf):
    push_to_hub(clf, REPO)
    expected = from_hub(REPO).hub_
    hub.requests.clear()
    assert from_hub(REPO, local_files_only=True).hub_ == expected
    assert from_hub(REPO, revision=expected["revision"], local_files_only=True).hub_ == expected
    assert hub.requests == []


@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        ({}, MissingFileError, r"owner/digits is not on the Hub, or private: .*hf auth login"),
        ({"/api/": (403, "GatedRepo")}, InputFileError, r"owner/digits is gated: ask for access"),
        ({"/api/": (404, "RevisionNotFound")}, MissingFileError, r"has no revision 'v1'"),
        ({"/api/": (500, "")}, MissingFileError, r"not in the cache at revision 'v1'"),
    ],
)
def test_errors_say_what_to_do(hub, refused, kind, message):
    hub.refused.update(refused)
    with pytest.raises(kind, match=message):
        from_hub(REPO, revision="v1", token="hf_secret")


def test_offline_without_the_cache(tmp_path):
    for options in ({}, {"local_files_only": True}):
        with pytest.raises(MissingFileError, match="HF_HUB_OFFLINE"):
            from_hub(REPO, cache_dir=tmp_path, **options)


def test_pickles_are_never_read(hub, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    hub.commit(REPO, {"model.pkl": trap, "classifier.joblib": trap, "pytorch_model.bin": trap})
    with pytest.raises(MissingFileError, match=r"has no classifier\.json.*pickles .* not read"):
        from_hub(REPO)
    assert not any("/resolve/" in path for _, path in hub.requests)
    hub.commit(REPO, dict.fromkeys(FILES, trap))
    with pytest.raises(DamagedFileError, match=r"owner/digits@\w{40}/classifier\.json is not a"):
        from_hub(REPO)
    assert not (tmp_path / "sprung").exists()


def test_other_files_of_the_repository_are_not_downloaded(hub, clf, tmp_path):
    push_to_hub(clf, REPO)
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    hub.commit(REPO, {"model.pkl": trap, "code.py": b"raise", "spare.safetensors": trap})
    hub.requests.clear()
    assert from_hub(REPO).classes_.tolist() == ["blue", "green", "red"]
    names = {path.rpartition("/")[2] for _, path in hub.requests if "/resolve/" in path}
    assert names == set(FILES)


def test_damaged_files_are_refused_by_the_name_of_the_repository(tmp_path, clf):
    clf.save(tmp_path / "saved")
    files = contents(tmp_path / "saved")
    files["classifier.json"] = files["classifier.json"].replace(b"a red digit", b"a big digit")
    snapshot(tmp_path / "cache", files)
    with pytest.raises(DamagedFileError, match=rf"{REPO}@0{{40}}/classifier\.json was edited"):
        from_hub(REPO, cache_dir=tmp_path / "cache", local_files_only=True)


def test_links_out_of_the_cache_are_refused(tmp_path, clf):
    clf.save(tmp_path / "saved")
    folder = snapshot(tmp_path / "cache", contents(tmp_path / "saved"))
    (folder / FILES[1]).unlink()
    (folder / FILES[1]).symlink_to(tmp_path / "saved" / FILES[1])
    with pytest.raises(InputFileError, match="leads out of the cache"):
        from_hub(REPO, cache_dir=tmp_path / "cache", local_files_only=True)


def test_a_network_that_is_not_on_the_hub_has_to_be_given(hub, tmp_path):
    root = saved(tiny_sd(), tmp_path / "model")
    clf = DiffusionClassifier(root, pruner=NoPruning(4), random_state=0).fit(None, ["cat", "dog"])
    push_to_hub(clf, REPO, allow_missing_network=True)
    with pytest.raises(InputValueError, match=r"owner/digits@\w{40} .*a folder\).*backend="):
        from_hub(REPO)  # though the folder is on this machine
    moved = saved(tiny_sd(), tmp_path / "elsewhere")
    images = RNG.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    loaded = from_hub(REPO, backend=moved)
    np.testing.assert_array_equal(loaded.predict_proba(images), clf.predict_proba(images))
    with pytest.raises(InputValueError, match="the backbone is not the one"):
        from_hub(REPO, backend=GaussianBackend())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("fitted", "hub_"), {"dict": [["repo_id", 3], ["revision", "a"]]}, "hub_"),
        (("fitted", "hub_"), {"dict": [["repo_id", "a/b"]]}, "hub_"),
        (("fitted", "hub_"), "owner/digits", "hub_"),
        (("backend", "kind"), "pickle", "kind"),
        (("backend", "value"), ["owner/model"], "backend"),
        (("backend", "value"), {"name": None}, "backend.value"),
        (("backend", "value"), "/etc", r"only its author has \(a folder\)"),
        (("backend", "value"), "../model", r"only its author has \(a folder\)"),
        (("fitted", "predict"), 1, "predict"),
    ],
)
def test_what_others_may_have_written_is_refused(tmp_path, clf, path, value, message):
    clf.save(tmp_path / "saved")
    state = read_state(tmp_path / "saved")
    put(state, path, value)
    edit(tmp_path / "saved", state)
    snapshot(tmp_path / "cache", contents(tmp_path / "saved"))
    with pytest.raises(InputValueError, match=message) as raised:
        from_hub(REPO, cache_dir=tmp_path / "cache", local_files_only=True)
    assert f"{REPO}@{'0' * 40}" in str(raised.value)
