"""A saved classifier from a stranger is read as ``save`` writes it, or refused with an error."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.errors import InputFileError
from tests.support.pipelines import saved, tiny_sd
from tests.support.saved_folders import (
    STATE,
    TENSORS,
    copy_saved,
    edit,
    put,
    read_state,
    read_tensors,
    written,
)

WORLD = Path(__file__).parents[1] / "data" / "saved_by_0_1_0"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return written(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy of the saved classifier, to edit."""
    return copy_saved(original, tmp_path / "saved")


def refused(folder, match):
    start = time.process_time()
    with pytest.raises(InputFileError, match=match) as caught:
        DiffusionClassifier.load(folder)
    assert time.process_time() - start < 10
    assert len(str(caught.value)) < 1500
    return caught.value


# ------------------------------------------------------------------ foreign code


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tiny_sd(), tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "option",
    ["custom_pipeline", "trust_remote_code", "custom_revision", "options", "token", "cache_dir"],
)
def test_an_option_of_from_pretrained_never_reaches_it(model, tmp_path, monkeypatch, option):
    backend = DiffusersBackend.from_pretrained(model)
    folder = tmp_path / "kept"
    DiffusionClassifier(backend, random_state=0).fit(None, ["cat", "dog"]).save(folder)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "pipeline.py").write_text("open('ran', 'w')\nraise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DiffusersBackend, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    state = read_state(folder)
    assert state["backend"]["kind"] == "origin"
    put(state, ("backend", "value", option), str(tmp_path / "evil"))
    edit(folder, state)
    refused(folder, f"backend.value has an unknown key '{option}'")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", None),
        ("revision", 3),
        ("variant", True),
        ("subfolder", ["a"]),
        ("dtype", "object"),
        ("dtype", "auto"),
        ("device", 0),
        ("offload", "to_disk"),
        ("free_text_encoder", "yes"),
        ("image_shape", {"tuple": [32, -32, 3]}),
        ("image_shape", {"tuple": [32, 10**12, 3]}),
        ("name", ...),
        ("dtype", ...),
    ],
)
def test_every_entry_of_an_origin_has_its_type(tmp_path, key, value):
    for file in (WORLD / "origin").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    DiffusionClassifier.load(tmp_path)
    state = read_state(tmp_path)
    put(state, ("backend", "value", key), value)
    edit(tmp_path, state)
    refused(tmp_path, rf"backend\.value.*{key}")


# ------------------------------------------------------------------ keys and types

PLACES = [
    (),
    ("backend",),
    ("backend", "value"),
    ("backend", "value", "arguments"),
    ("backend", "learned"),
    ("parameters",),
    ("parameters", "priors"),
    ("parameters", "pruner"),
    ("parameters", "pruner", "arguments"),
    ("parameters", "pruner", "learned"),
    ("fitted",),
    ("fitted", "sampler_", "learned"),
    ("fitted", "pruner_", "learned"),
    ("fitted", "weighting_", "arguments"),
    ("fitted", "classes_"),
    ("fitted", "prompts_"),
    ("fitted", "_condition"),
    ("fitted", "_condition", "arguments"),
    ("fitted", "_scoring", "arguments"),
    ("fitted", "_scoring", "arguments", "weights"),
]


@pytest.mark.parametrize("key", ["extra", "__class__", "predict"])
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_key_that_save_does_not_write_is_refused_by_name(folder, place, key):
    state = read_state(folder)
    put(state, (*place, key), 1)
    edit(folder, state)
    refused(folder, key)


@pytest.mark.parametrize(
    ("place", "value", "match"),
    [
        (("format_version",), "1", "version '1'"),
        (("package_version",), None, "package_version"),
        (("backend", "kind"), "pickle", "kind='pickle'"),
        (("backend", "kind"), {}, "kind"),
        (("backend", "value"), "owner/model", "backend"),
        (("backend", "value", "class"), "StratifiedSampler", "class|round_size|means"),
        (("backend", "value", "class"), ["GaussianBackend"], "class"),
        (("backend", "value", "arguments", "n_timesteps"), 10**12, "n_timesteps"),
        (("backend", "value", "arguments", "n_timesteps"), -1, "n_timesteps"),
        (("backend", "value", "arguments", "reg_param"), float("nan"), "reg_param"),
        (("backend", "learned", "means_"), 1.0, "means_"),
        (("backend", "learned", "means_"), ..., "means_|left over"),
        (("fitted", "pruner_", "learned", "deviation_"), ..., "learned|deviation_"),
        (("parameters", "batch_size"), 10**15, "batch_size"),
        (("parameters", "loss"), "code", "loss"),
        (("parameters", "pruner", "arguments", "max_draws"), 10**15, "max_draws"),
        (("parameters", "pruner", "arguments", "alpha"), ["x"], "alpha"),
        (("fitted", "seed_"), -1, "seed_"),
        (("fitted", "seed_"), 1e30, "seed_"),
        (("fitted", "loss_"), "vlb", "vlb"),
        (("fitted", "image_size_"), {"tuple": [10**9, 10**9]}, "image_size_"),
        (("fitted", "n_features_in_"), "2", "n_features_in_"),
        (("fitted", "classes_", "dtype"), "<U999999999", "classes_"),
        (("fitted", "classes_", "dtype"), "<U2", "classes_"),
        (("fitted", "classes_", "dtype"), "<f8", "classes_"),
        (("fitted", "classes_", "items"), [["a"], ["b"], ["c"]], "classes_"),
        (("fitted", "classes_", "items"), ["left", "left", "right"], "prompts_|label"),
        (("fitted", "prompts_", "dict"), [["left"]], "prompts_"),
        (("fitted", "prompts_", "dict"), [[["left"], "l"]], "prompts_"),
        (("fitted", "prompts_", "dict", 0, 1), "l", "prompts_"),
        (("fitted", "prompts_", "dict", 0, 1), ["l"], "class_of"),
        (("fitted", "pruner_", "class"), "NoPruning", "unknown key"),
        (("fitted", "pruner_", "class"), "Pruner", "class 'Pruner' cannot be loaded"),
        (("fitted", "pruner_", "arguments", "max_draws"), 0, "max_draws"),
        (("fitted", "pruner_", "learned", "deviation_"), -1.0, "deviation_"),
        (("fitted", "pruner_", "learned", "deviation_"), float("inf"), "deviation_"),
        (("fitted", "pruner_", "learned", "round_size_"), 1.5, "round_size_"),
        (("fitted", "calibrator_", "learned", "log_temperature_"), {"tuple": [1e9, 0]}, "log_temp"),
        (("fitted", "calibrator_", "learned", "log_temperature_"), "T", "log_temperature_"),
        (("fitted", "sampler_"), None, "sampler_"),
        (("fitted", "sampler_"), ..., "sampler_|left over"),
        (("fitted", "_scoring", "arguments", "reduction"), "worst", "reduction"),
        (("fitted", "_scoring", "arguments", "weights"), [1.0], "weights"),
        (("fitted", "_scoring", "arguments", "weights", "tensor"), "elsewhere", "elsewhere"),
        (
            ("fitted", "_scoring", "arguments", "weights", "tensor"),
            "fitted._scoring.log_prior",
            "log_prior",
        ),
        (("fitted", "_condition", "arguments"), {}, "_condition|left over"),
        (("sha256",), {}, "sha256|damaged"),
    ],
    ids=str,
)
def test_a_value_that_save_does_not_write_is_refused_by_name(folder, place, value, match):
    state = read_state(folder)
    put(state, place, value)
    edit(folder, state)
    if place == ("sha256",):
        (folder / STATE).write_text(json.dumps({**state, "sha256": value}))
    refused(folder, match)


def test_parameters_that_an_earlier_release_lacked_have_their_defaults(folder):
    state = read_state(folder)
    put(state, ("parameters", "n_fit_images"), ...)
    edit(folder, state)
    assert DiffusionClassifier.load(folder).n_fit_images == 100


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize("depth", [40, 900, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_deep_nesting_is_refused(folder, depth, brackets):
    state = read_state(folder)
    state["parameters"]["verbose"] = "HERE"
    opening, closing = brackets[:-1], brackets[-1]
    text = json.dumps(state).replace('"HERE"', opening * depth + "1" + closing * depth)
    (folder / STATE).write_text(text)
    refused(folder, "not a saved classifier|nested more than")


@pytest.mark.parametrize("place", ['"format"', '"kind"', '"items"'])
def test_a_million_keys_are_refused_without_a_list_of_them(folder, place):
    """At the top, in an object with keys of its own, and in an encoded value."""
    keys = ", ".join(f'"key{n}": 0' for n in range(10**6 if place == '"format"' else 10**5))
    text = (folder / STATE).read_text().replace(place, f"{keys}, {place}", 1)
    (folder / STATE).write_text(text)
    if place != '"format"':
        edit(folder)
    refused(folder, "unknown key 'key0'|has the keys")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[1]",
        b'{"format": "diffusion_classifier", "format": "diffusion_classifier"}',
        b'{"format_version": ' + b"1" * 5000 + b"}",
        b'{"format": NaN, "format_version": Infinity}',
    ],
)
def test_other_json_is_refused(folder, content):
    (folder / STATE).write_bytes(content)
    refused(folder, "is not a saved classifier|has format")


def test_a_key_that_occurs_twice_is_refused(folder):
    text = (folder / STATE).read_text()
    (folder / STATE).write_text(text.replace('"seed_":', '"seed_": 1, "seed_":'))
    refused(folder, "occurs twice")


# ------------------------------------------------------------------ tensors

WEIGHTS, PRIOR, CLASS_OF = (f"fitted._scoring.{n}" for n in ("weights", "log_prior", "class_of"))
CONDITION = "fitted._condition.class_index"


def filled(tensor, value):
    tensor = tensor.clone()
    tensor[0] = value
    return tensor


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        (WEIGHTS, lambda t: filled(t, torch.nan), "weights holds NaN"),
        (WEIGHTS, lambda t: filled(t, torch.inf), "weights"),
        (WEIGHTS, lambda t: filled(t, -1), "weights"),
        (WEIGHTS, lambda t: t.float(), "weights .*float32"),
        (WEIGHTS, lambda t: t[:-1], "timesteps"),
        (WEIGHTS, lambda t: t[None], "weights .*axis"),
        (WEIGHTS, lambda t: t.bfloat16(), "weights .*bfloat16"),
        (PRIOR, lambda t: filled(t, torch.nan), "log_prior holds NaN"),
        (PRIOR, lambda t: t + 1, "log_prior"),
        (PRIOR, lambda t: t[:2], "log_prior"),
        (CLASS_OF, lambda t: filled(t, 2), "class_of"),
        (CLASS_OF, lambda t: filled(t, 10**12), "class_of"),
        (CLASS_OF, lambda t: t[:0], "class_of"),
        (CLASS_OF, lambda t: filled(t, -1), "class_of"),
        (CLASS_OF, lambda t: t.double(), "class_of .*float64"),
        (CONDITION, lambda t: filled(t, 9), "_condition"),
        (CONDITION, lambda t: filled(t, -1), "_condition"),
        (CONDITION, lambda t: t[:2], "_condition has 2 rows for 4 prompts"),
        (CONDITION, lambda t: t[0], "class_index"),
        (CONDITION, lambda t: t.double(), "_condition"),
        ("backend_.means_", lambda t: t[:2], "means_ has shape"),
        ("backend_.means_", lambda t: t[:, :, :1], "means_ has shape"),
        ("backend_.means_", lambda t: filled(t, torch.nan), "means_ holds NaN"),
        ("backend_.variances_", lambda t: t[:, :, :1], "variances_ has shape"),
        ("backend_.center_", lambda t: t.bfloat16(), "center_"),
        ("backend_.center_", lambda t: t[:0], "has shape"),
        ("backend_.center_", lambda t: filled(t, torch.inf), "center_"),
        ("backend_.class_rotations_", lambda t: t[:, :1], "class_rotations_ has shape"),
        ("fitted.sampler_.proposal_", lambda t: t[:-1], "proposal"),
        ("fitted.sampler_.proposal_", lambda t: filled(t, -1), "proposal_"),
        ("parameters.priors", lambda t: -t, "priors"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(folder, name, change, match):
    tensors = read_tensors(folder)
    tensors[name] = change(tensors[name]).contiguous()
    edit(folder, tensors=tensors)
    refused(folder, match)


def test_a_tensor_that_is_missing_or_left_over_is_refused_by_name(folder):
    tensors = read_tensors(folder)
    edit(folder, tensors={name: t for name, t in tensors.items() if name != WEIGHTS})
    refused(folder, r"fitted\._scoring\.weights .*missing")
    edit(folder, tensors={**tensors, "extra": torch.ones(1)})
    refused(folder, "tensor 'extra' is left over")


def header(**tensors):
    """Bytes of a safetensors file with this header and no data."""
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


SHAPES = {"dtype": "F64", "shape": [2**60], "data_offsets": [0, 2**63]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        (2**63).to_bytes(8, "little"),
        (10**8).to_bytes(8, "little") + b"{}",
        header(**{WEIGHTS: SHAPES}),
        header(**{WEIGHTS: {**SHAPES, "shape": [-5]}}),
        header(**{WEIGHTS: {**SHAPES, "shape": [2**40, 2**40]}}),
        header(**{WEIGHTS: {**SHAPES, "dtype": "PICKLE"}}),
        header(**{WEIGHTS: {**SHAPES, "data_offsets": [8, 0]}}),
        b"\x80\x04\x95" + b"cos\nsystem\n" * 20,
    ],
)
def test_files_that_are_no_safetensors_are_refused(folder, content):
    edit(folder, tensors=content)
    refused(folder, r"tensors\.safetensors")


@pytest.mark.parametrize("change", [-100, -1, 1, 10_000])
def test_a_file_of_another_length_is_refused_before_it_is_read(folder, change):
    content = (folder / TENSORS).read_bytes()
    edit(folder, tensors=content[:change] if change < 0 else content + b"\x00" * change)
    refused(folder, r"tensors\.safetensors is not a whole safetensors file")


@pytest.mark.parametrize("name", [STATE, TENSORS])
def test_a_huge_file_is_refused_without_reading_it(folder, name):
    os.truncate(folder / name, 2**43)  # without data: it takes no space
    refused(folder, rf"{name}.*(bytes|whole safetensors)")
