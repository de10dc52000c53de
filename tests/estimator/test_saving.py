"""Saving and loading: the same answers to the bit, and nothing silently changed."""

import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend, GaussianBackend
from diffusion_classifier.errors import InputFileError, InputTypeError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import FixedDraws, StratifiedSampler
from tests.support.pipelines import edit_index, saved, tiny_sd
from tests.support.saved_folders import edit, read_state

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
BUDGET = NoPruning(8)


class OwnPruner(NoPruning):
    """A user's own strategy."""


def constant(z, t, class_index):
    return z * class_index[:, None, None, None]


def in_memory(**options):
    options = {"schedule": NoiseSchedule.flow(100), "classes": ["a", "b"], **options}
    return FunctionBackend(constant, image_size=(8, 8), **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tiny_sd(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def clf(model):
    return DiffusionClassifier(model, pruner=BUDGET, random_state=0).fit(None, ["cat", "dog"])


@pytest.mark.parametrize(
    "options",
    [
        {"pruner": StagedPruner((4,), (2,), max_draws=8), "weighting": "exponential"},
        {"pruner": "none", "sampler": FixedDraws([10, 400, 900], np.zeros((3, 4, 8, 8)))},
        {"sampler": StratifiedSampler(2, antithetic=True), "pruner": BUDGET, "loss": "huber"},
        {"prompts": ["a {}", "one {}"], "prompt_reduction": "mean"},
        {
            "prompts": {"cat": "a cat", "dog": ["x", "y"]},
            "priors": np.array([1, 3]),
            "pruner": BUDGET,
        },
    ],
)
def test_a_loaded_classifier_answers_to_the_bit_as_the_saved_one(model, tmp_path, options):
    fitted = DiffusionClassifier(model, **{"pruner": BUDGET, **options}).fit(None, ["cat", "dog"])
    fitted.save(tmp_path / "kept")
    loaded = DiffusionClassifier.load(tmp_path / "kept")
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), fitted.predict_proba(IMAGES))
    assert repr(loaded) == repr(fitted)
    assert loaded.prompts_ == fitted.prompts_ and loaded.seed_ == fitted.seed_
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert loaded.backend_.pipeline is fitted.backend_.pipeline  # named models: once per process
    clone(loaded).fit(None, ["cat", "dog"])


def test_the_folder_holds_no_weights_and_no_pickle(clf, tmp_path):
    clf.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classifier.json",
        "tensors.safetensors",
    ]
    prompts = ["a photo of a cat", "a photo of a dog"]
    embeddings = clf.backend_.encode_classes(prompts, prompts)["encoder_hidden_states"].nbytes
    n_timesteps = clf.backend_.schedule.n_timesteps
    assert (
        sum(path.stat().st_size for path in tmp_path.iterdir())
        < embeddings + 8 * n_timesteps + 8_000
    )
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "tensors.safetensors").read_bytes())
    state = json.loads((tmp_path / "classifier.json").read_text())
    assert state["format_version"] == 1
    assert state["backbone"] == clf.backend_.identity()


def test_the_embedded_model_is_found_again_on_any_machine(tmp_path):
    clf = DiffusionClassifier(pruner=BUDGET).fit(None, ["red digit", "blue digit"])
    clf.save(tmp_path)
    assert "/" not in json.loads((tmp_path / "classifier.json").read_text())["backbone"]["name"]
    np.testing.assert_array_equal(
        DiffusionClassifier.load(tmp_path).predict_proba(IMAGES), clf.predict_proba(IMAGES)
    )


def test_a_gaussian_backend_is_kept_whole(tmp_path):
    X, y = load_iris(return_X_y=True)
    for options in ({}, {"covariance_type": "diag", "schedule": NoiseSchedule.flow(50)}):
        clf = DiffusionClassifier(GaussianBackend(**options), pruner=BUDGET).fit(X, y)
        clf.save(tmp_path)
        loaded = DiffusionClassifier.load(tmp_path)
        np.testing.assert_array_equal(loaded.predict_proba(X[::9]), clf.predict_proba(X[::9]))
        np.testing.assert_array_equal(
            loaded.backend_.log_likelihood(X), clf.backend_.log_likelihood(X)
        )
        assert loaded.n_features_in_ == 4
        assert loaded.fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize("owner", ["pruner_", None])
def test_an_attribute_that_fit_does_not_set_is_not_saved(clf, tmp_path, owner):
    vars(getattr(clf, owner) if owner else clf)["notes_"] = "mine"
    with pytest.raises(InputValueError, match="has an unknown key 'notes_'"):
        clf.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_backend_made_in_memory_is_passed_again(tmp_path):
    clf = DiffusionClassifier(in_memory(), pruner=BUDGET).fit(None, ["a", "b"])
    clf.save(tmp_path)
    with pytest.raises(ValueError, match=r"FunctionBackend created in memory.*backend=\.\.\."):
        DiffusionClassifier.load(tmp_path)
    loaded = DiffusionClassifier.load(tmp_path, backend=in_memory())
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), clf.predict_proba(IMAGES))
    with pytest.raises(ValueError, match="config_sha256 was"):
        DiffusionClassifier.load(tmp_path, backend=in_memory(prediction_type="flow"))


def test_a_pipeline_made_in_memory_is_passed_again(tmp_path):
    backend = DiffusersBackend(tiny_sd())
    clf = DiffusionClassifier(backend, pruner=BUDGET).fit(None, ["cat", "dog"])
    clf.save(tmp_path)
    loaded = DiffusionClassifier.load(tmp_path, backend=DiffusersBackend(tiny_sd()))
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), clf.predict_proba(IMAGES))
    other = DiffusersBackend(tiny_sd("v_prediction"))
    with pytest.raises(ValueError, match=r"not the one that .* was saved with: config_sha256"):
        DiffusionClassifier.load(tmp_path, backend=other)


def test_a_backend_loaded_by_the_user_is_loaded_again_alike(model, tmp_path):
    backend = DiffusersBackend.from_pretrained(model, dtype=torch.bfloat16)
    clf = DiffusionClassifier(backend, pruner=BUDGET).fit(None, ["cat", "dog"])
    clf.save(tmp_path)
    loaded = DiffusionClassifier.load(tmp_path)
    assert loaded.backend_.dtype == torch.bfloat16
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), clf.predict_proba(IMAGES))


def test_prompt_embeddings_follow_the_networks_dtype(clf, model, tmp_path, monkeypatch):
    clf.save(tmp_path)
    half = DiffusersBackend.from_pretrained(model, dtype=torch.bfloat16)
    given, forward = set(), half.forward

    def watched(z, t, condition):
        given.add(condition["encoder_hidden_states"].dtype)
        return forward(z, t, condition)

    monkeypatch.setattr(half, "forward", watched)
    loaded = DiffusionClassifier.load(tmp_path, backend=half)
    np.testing.assert_allclose(
        loaded.predict_log_proba(IMAGES), clf.predict_log_proba(IMAGES), atol=2
    )
    assert given == {torch.bfloat16}


def test_a_changed_backbone_is_refused(tmp_path):
    model = saved(tiny_sd(), tmp_path / "model")
    backend = DiffusersBackend.from_pretrained(model)
    DiffusionClassifier(backend).fit(None, ["cat", "dog"]).save(tmp_path / "kept")
    saved(tiny_sd("v_prediction"), model)
    with pytest.raises(ValueError, match=r"backbone is not the one that .*kept was saved with"):
        DiffusionClassifier.load(tmp_path / "kept")


def test_a_moved_backbone_is_passed(model, clf, tmp_path):
    clf.save(tmp_path / "kept")
    moved = saved(tiny_sd(), tmp_path / "moved")
    loaded = DiffusionClassifier.load(tmp_path / "kept", backend=moved)
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), clf.predict_proba(IMAGES))


def test_another_revision_is_refused(clf, tmp_path):
    clf.save(tmp_path)
    state = read_state(tmp_path)
    state["backbone"]["revision"] = "abc"
    edit(tmp_path, state)
    with pytest.raises(ValueError, match="revision was 'abc', now None"):
        DiffusionClassifier.load(tmp_path)


@pytest.mark.parametrize("name", ["classifier.json", "tensors.safetensors"])
def test_an_edited_file_is_refused(clf, tmp_path, name):
    clf.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    edited = content.replace(b'"l2"', b'"l1"') if name.endswith("json") else content[:-1] + b"\x01"
    assert edited != content
    (tmp_path / name).write_bytes(edited)
    for error in (InputFileError, ValueError):
        with pytest.raises(error, match=f"{name} was edited or damaged"):
            DiffusionClassifier.load(tmp_path)


def test_another_format_version_is_refused(clf, tmp_path):
    clf.save(tmp_path)
    edit(tmp_path, read_state(tmp_path) | {"format_version": 2})
    with pytest.raises(InputFileError, match=r"version 2, .* reads .*, version 1"):
        DiffusionClassifier.load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}'])
def test_other_files_of_that_name_are_refused(tmp_path, content):
    (tmp_path / "classifier.json").write_text(content)
    with pytest.raises(ValueError, match="is not a saved classifier"):
        DiffusionClassifier.load(tmp_path)


def test_a_class_from_elsewhere_is_neither_written_nor_read(clf, tmp_path):
    clf.save(tmp_path / "kept")
    state = read_state(tmp_path / "kept")
    for name in ("Popen", "OwnPruner", "FunctionBackend"):
        entry = {"class": name, "arguments": {}, "learned": {}}
        state["fitted"]["pruner_"] = entry
        edit(tmp_path / "kept", state)
        with pytest.raises(InputFileError, match=f"class '{name}' cannot be loaded"):
            DiffusionClassifier.load(tmp_path / "kept")
    own = clone(clf).set_params(pruner=OwnPruner(4)).fit(None, ["cat", "dog"])
    with pytest.raises(TypeError, match=r"pruner=OwnPruner\(max_draws=4\) cannot be saved"):
        own.save(tmp_path / "own")


def test_saving_twice_writes_over_and_other_files_are_left_alone(clf, tmp_path):
    clf.save(tmp_path)
    clf.fit(None, ["eel", "fox"]).save(tmp_path)
    assert DiffusionClassifier.load(tmp_path).classes_.tolist() == ["eel", "fox"]
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="holds other files"):
        clf.save(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        clf.save(tmp_path / "thesis.txt")
    with pytest.raises(FileNotFoundError, match=r"classifier\.json"):
        DiffusionClassifier.load(tmp_path / "nowhere")


def test_an_unfitted_classifier_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        DiffusionClassifier().save(tmp_path)


def test_a_generator_is_not_kept_but_its_seed_is(model, tmp_path):
    clf = DiffusionClassifier(model, pruner=BUDGET, random_state=np.random.RandomState(3))
    clf.fit(None, ["cat", "dog"]).save(tmp_path)
    loaded = DiffusionClassifier.load(tmp_path)
    assert loaded.random_state is None and loaded.seed_ == clf.seed_


def test_a_malicious_model_index_is_not_run(model, clf, tmp_path):
    clf.save(tmp_path / "kept")
    own = saved(tiny_sd(), tmp_path / "model")
    edit_index(own, _class_name=["evil", "Pipeline"])
    with pytest.raises(ValueError, match="its own code"):
        DiffusionClassifier.load(tmp_path / "kept", backend=own)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (None, InputTypeError, "folder=None must be the path of a folder"),
        (3, InputTypeError, "folder=3 must be the path of a folder"),
        ("/proc/saved", InputFileError, r"'/proc/saved' cannot be made .*; pass another folder"),
        ("{file}/below", InputFileError, "cannot be made .*; pass another folder"),
        ("a\0b", InputFileError, "cannot be made .*; pass another folder"),
    ],
)
def test_a_place_that_is_no_folder_is_refused(clf, tmp_path, place, error, message):
    (tmp_path / "file").touch()
    place = place.format(file=tmp_path / "file") if isinstance(place, str) else place
    with pytest.raises(error, match=message):
        clf.save(place)
    if error is InputTypeError:
        with pytest.raises(error, match=message):
            DiffusionClassifier.load(place)
