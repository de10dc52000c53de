"""Uploads: what is on the Hub afterwards, and what is refused before anything is sent."""

import logging
import tempfile

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend, GaussianBackend
from diffusion_classifier.errors import (
    FolderInUseError,
    InputFileError,
    InputTypeError,
    InputValueError,
)
from diffusion_classifier.hub import push_to_hub
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.shortlist import ClipShortlist
from tests.support.pipelines import saved, tiny_sd

TOKEN = "hf_thisIsVerySecretIndeed"
REPO = "owner/digits"


@pytest.fixture
def clf():
    return DiffusionClassifier(prompts="a {} digit", random_state=0).fit(None, ["red", "blue"])


def test_one_commit_of_three_files(hub, clf, tmp_path):
    address = push_to_hub(clf, REPO, token=TOKEN)
    clf.save(tmp_path / "folder")
    files = hub.files(REPO)
    names = ["classifier.json", "tensors.safetensors"]
    assert sorted(files) == sorted([".gitattributes", "README.md", *names])
    for name in names:
        assert files[name] == (tmp_path / "folder" / name).read_bytes()
    assert len(hub.repos[REPO]["commits"]) == 2  # the empty one, and the push
    assert address == f"{hub.url}/{REPO}/commit/{hub.repos[REPO]['branches']['main']}"
    assert hub.repos[REPO]["messages"] == ["Saved with diffusion_classifier 0.1.0"]
    assert hub.tokens <= {f"Bearer {TOKEN}", None}


def test_a_second_push_replaces_the_first(hub, clf):
    push_to_hub(clf, REPO)
    before = dict(hub.files(REPO))
    push_to_hub(clf.fit(None, ["red", "blue", "green"]), REPO, commit_message="three")
    after = hub.files(REPO)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in ("classifier.json", "README.md"))
    assert hub.repos[REPO]["messages"][-1] == "three"


def test_a_push_by_others_in_between_is_not_overwritten(hub, clf, monkeypatch):
    push_to_hub(clf, REPO)
    original, theirs = hub.answer, []

    def answer(method, path, query, body):
        if "/commit/" in path and not theirs:
            theirs.append(hub.commit(REPO, {"README.md": b"theirs"}))
        return original(method, path, query, body)

    monkeypatch.setattr(hub, "answer", answer)
    with pytest.raises(InputFileError, match=r"others pushed to it.*look at what they changed"):
        push_to_hub(clf, REPO)
    assert hub.files(REPO)["README.md"] == b"theirs"
    push_to_hub(clf, REPO)
    assert hub.files(REPO)["README.md"] != b"theirs"


@pytest.mark.parametrize(("private", "visibility"), [(None, None), (True, "private")])
def test_visibility_of_a_new_repository(hub, clf, private, visibility):
    push_to_hub(clf, REPO, private=private)
    assert hub.repos[REPO]["visibility"] == visibility


def test_branches_and_pull_requests(hub, clf):
    push_to_hub(clf, REPO, revision="try")
    assert "classifier.json" in hub.files(REPO, "try")
    assert list(hub.files(REPO)) == [".gitattributes"]
    assert push_to_hub(clf, REPO, create_pr=True) == f"{hub.url}/{REPO}/discussions/1"
    assert "classifier.json" in hub.files(REPO, "refs/pr/1")
    assert list(hub.files(REPO)) == [".gitattributes"]


def test_a_repository_with_other_files_is_left_alone(hub, clf):
    before = hub.commit(REPO, {"model_index.json": b"{}", "README.md": b"a model", "LICENSE": b""})
    with pytest.raises(FolderInUseError, match=r"owner/digits holds other files .*model_index"):
        push_to_hub(clf, REPO)
    assert list(hub.repos[REPO]["commits"]) == [before]


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        ("/commit/", 500, r"owner/digits: .*status 500; try again later"),
        ("/preupload/", 403, r"lacks the right"),
        ("/repos/create", 401, r"lacks the right .*hf auth login"),
    ],
)
def test_a_failed_upload_leaves_nothing_behind(
    hub, clf, monkeypatch, tmp_path, caplog, capsys, part, status, message
):
    here = tmp_path / "temporary"
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    hub.refused[part] = status, ""
    with caplog.at_level(logging.DEBUG), pytest.raises(InputFileError, match=message) as raised:
        push_to_hub(clf, REPO, token=TOKEN)
    assert list(here.iterdir()) == []
    assert all("classifier.json" not in files for files in commits(hub))
    said = [str(raised.value), str(raised.value.__cause__), caplog.text, *capsys.readouterr()]
    assert not any(TOKEN in text for text in said)


def commits(hub):
    return [files for repo in hub.repos.values() for files in repo["commits"].values()]


def test_the_token_is_nowhere_in_the_files(hub, clf):
    push_to_hub(clf, REPO, token=TOKEN)
    assert not any(TOKEN.encode() in content for content in hub.files(REPO).values())


def test_networks_that_others_cannot_load_are_refused(hub, tmp_path):
    folder = saved(tiny_sd(), tmp_path / "model")
    local = DiffusionClassifier(folder, random_state=0).fit(None, ["cat", "dog"])
    function = FunctionBackend(
        lambda z, t, class_index: z,
        schedule=NoiseSchedule.flow(10),
        classes=["a", "b"],
        image_size=(8, 8),
    )
    in_memory = DiffusionClassifier(function, random_state=0).fit(None, ["a", "b"])
    for clf, what in ((local, "of a folder of this machine"), (in_memory, "made in memory")):
        with pytest.raises(InputValueError, match=f"{what}.*allow_missing_network=True"):
            push_to_hub(clf, REPO)
        assert hub.requests == []
    push_to_hub(local, REPO, allow_missing_network=True)
    card = hub.files(REPO)["README.md"].decode()
    assert "**The network is not on the Hub.**" in card
    assert 'from_hub("owner/digits", backend=...)' in card
    assert str(folder) not in card


def test_a_backend_that_the_files_hold_needs_no_permission(hub):
    X = np.random.default_rng(0).normal(size=(40, 3))
    clf = DiffusionClassifier(GaussianBackend(n_timesteps=20), random_state=0).fit(X, X[:, 0] > 0)
    push_to_hub(clf, REPO)
    assert "GaussianBackend" in hub.files(REPO)["README.md"].decode()


def test_what_is_no_fitted_classifier_is_refused(hub, clf):
    with pytest.raises(NotFittedError):
        push_to_hub(DiffusionClassifier(), REPO)
    search = GridSearchCV(clf, {})
    search.best_estimator_ = clf
    with pytest.raises(InputTypeError, match="pass best_estimator_ alone"):
        push_to_hub(search, REPO)
    with pytest.raises(InputTypeError, match="repo_id=3 must be a string"):
        push_to_hub(clf, 3)
    for name in ("a/b/c", "a--b", "a/b\n", 'a/")', ""):
        with pytest.raises(InputValueError, match="is not the name of a repository"):
            push_to_hub(clf, name)
    assert hub.requests == []


def test_offline_is_said(monkeypatch, clf, hub):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputFileError, match="HF_HUB_OFFLINE is set: unset it"):
        push_to_hub(clf, REPO)
    assert hub.requests == []


@pytest.mark.parametrize("below_home", [False, True])
def test_a_shortlist_of_a_local_folder_is_refused(hub, clf, tmp_path, monkeypatch, below_home):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = "~/clip" if below_home else tmp_path
    clf.shortlist_ = ClipShortlist(folder, k=2)  # as fit sets it
    clf.shortlist_.text_features_ = torch.zeros(2, 4)
    clf.shortlist_.scale_, clf.shortlist_.prior_strength_ = 1.0, 0.0
    clf.shortlist_.identity_ = {"name": str(tmp_path)}
    with pytest.raises(InputValueError, match=r"the shortlist's model .* is of a folder of this"):
        push_to_hub(clf, REPO)
    assert hub.requests == []
