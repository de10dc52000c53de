"""Folders of models that would run code, block, or be something else than they say."""

import json
import os
import pickle
import shutil
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.errors import InputError
from tests.support.other_pipelines import tiny_dit, tiny_sd3
from tests.support.pipelines import MAX_TOKENS, edit_index, sample_output, saved, tiny_sd

pytestmark = pytest.mark.usefixtures("empty_model_cache")


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    return Path(saved(tiny_sd(), tmp_path_factory.mktemp("saved") / "model"))


@pytest.fixture
def folder(saved_once, tmp_path):
    return Path(shutil.copytree(saved_once, tmp_path / "model"))


@pytest.fixture(params=["folder", "hub"])
def load(request, folder, monkeypatch):
    """Load the folder, or the same as a snapshot of the Hub."""
    if request.param == "folder":
        return lambda: load_backend(folder)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda name, filename, **_: str(folder / filename)
    )
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", lambda name, **_: str(folder))
    return lambda: load_backend("someone/model")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def write_index(part, file_name, weight_map=None):
    """Turn a component's weights into one shard, ``file_name``, with an index."""
    (path,) = part.glob("*.safetensors")
    tensors = load_file(path)
    weight_map = dict.fromkeys(tensors, file_name) if weight_map is None else weight_map
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()
    return tensors


NETWORKS = ("unet", "vae", "text_encoder")


@pytest.mark.parametrize("part", NETWORKS)
def test_an_index_of_weights_cannot_name_a_pickle(folder, load, part):
    marker = folder.parent / "unpickled"
    write_index(folder / part, "weights.bin")
    (folder / part / "other.safetensors").write_bytes(b"")
    (folder / part / "weights.bin").write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(InputError, match=rf"{part}.*index\.json says .*'weights\.bin', which is n"):
        load()
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../unet/a.safetensors", "/etc/a.safetensors", 3, None])
def test_an_index_of_weights_names_files_beside_it(folder, load, name):
    tensors = write_index(folder / "unet", name)
    save_file(tensors, folder / "unet" / "a.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"unet.*index\.json says .*not the name of a file beside"):
        load()


def test_an_index_of_weights_names_files_that_exist_and_hold_what_it_says(folder):
    tensors = write_index(folder / "unet", "a.safetensors")
    save_file(tensors, folder / "unet" / "a.safetensors", {"format": "pt"})
    torch.testing.assert_close(
        load_backend(folder).pipeline.unet.conv_in.bias, tensors["conv_in.bias"]
    )
    lost = tensors.pop("conv_in.bias")
    save_file(tensors, folder / "unet" / "a.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"a\.safetensors has no 'conv_in\.bias', though"):
        load_backend(folder)
    save_file({"conv_in.bias": lost}, folder / "unet" / "b.safetensors", {"format": "pt"})
    (folder / "unet" / "a.safetensors").unlink()
    with pytest.raises(InputError, match=r"a\.safetensors is missing, though .*index\.json names"):
        load_backend(folder)


@pytest.mark.parametrize("content", [[], {}, {"weight_map": []}, {"weight_map": None}], ids=str)
def test_an_index_of_weights_without_a_map_is_refused(folder, content):
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(content)
    )
    with pytest.raises(InputError, match=r"unet.*(no weight_map|holds a JSON list)"):
        load_backend(folder)


@pytest.mark.parametrize("part", NETWORKS)
@pytest.mark.parametrize("kind", ["pickle", "truncated", "empty", "header"])
def test_weights_must_be_safetensors_throughout(folder, load, part, kind):
    marker = folder.parent / "unpickled"
    (path,) = (folder / part).glob("*.safetensors")
    content = {
        "pickle": pickle.dumps(Trap(marker)),
        "truncated": path.read_bytes()[:-1],
        "empty": b"",
        "header": b"\xff" * 64,
    }[kind]
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name} is not a complete safetensors file"):
        load()
    assert not marker.exists()


@pytest.mark.parametrize(
    ("part", "entry", "expected"),
    [
        ("unet", ["diffusers", "StableDiffusionPipeline"], "UNet2DConditionModel"),
        ("unet", ["diffusers", "DiffusionPipeline"], "UNet2DConditionModel"),
        ("unet", ["diffusers", "AutoencoderKL"], "UNet2DConditionModel"),
        ("unet", ["diffusers", "AutoModel"], "UNet2DConditionModel"),
        ("unet", ["transformers", "CLIPTextModel"], "UNet2DConditionModel"),
        ("unet", ["diffusers", "DDIMScheduler"], "UNet2DConditionModel"),
        ("unet", ["diffusers", "utils"], "UNet2DConditionModel"),
        ("unet", ["diffusers", "os.system"], "UNet2DConditionModel"),
        ("vae", ["diffusers", "UNet2DConditionModel"], "AutoencoderKL or AutoencoderTiny"),
        ("text_encoder", ["transformers", "RagModel"], "CLIPTextModel or BertModel"),
        ("text_encoder", ["transformers", "AutoModel"], "CLIPTextModel or BertModel"),
        ("text_encoder", ["transformers", "pipeline"], "CLIPTextModel or BertModel"),
        ("tokenizer", ["transformers", "CLIPTextModel"], "PreTrainedTokenizerBase"),
        ("scheduler", ["diffusers", "StableDiffusionPipeline"], "SchedulerMixin"),
        ("scheduler", ["diffusers", "UNet2DConditionModel"], "SchedulerMixin"),
    ],
    ids=str,
)
def test_a_component_has_a_class_that_its_pipeline_expects(folder, load, part, entry, expected):
    edit_index(folder, **{part: entry})
    message = rf"names {entry[0]}\.{entry[1]} as {part}, but StableDiffusionPipeline takes "
    with pytest.raises(InputError, match=message + expected):
        load()


def test_a_nested_pipeline_runs_nothing(folder, load):
    """Its own components, and pickles among them, were read without any check."""
    marker = folder.parent / "unpickled"
    nested = folder / "unet"
    shutil.rmtree(nested)
    saved(tiny_sd(), nested)
    for path in (nested / "unet").glob("*.safetensors"):
        path.unlink()
    (nested / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(marker)))
    (nested / "a.safetensors").write_bytes(b"")
    edit_index(folder, unet=["diffusers", "StableDiffusionPipeline"])
    with pytest.raises(InputError, match="as unet"):
        load()
    assert not marker.exists()


def test_classes_of_other_schedulers_and_of_older_releases_still_load(folder, tmp_path):
    edit_index(folder, scheduler=["diffusers", "EulerAncestralDiscreteScheduler"])
    assert load_backend(folder).prediction_type == "epsilon"
    edit_index(folder, tokenizer=["transformers", "CLIPTokenizerFast"])
    assert load_backend(folder).text_conditional
    dit = saved(tiny_dit(), tmp_path / "dit")
    edit_index(dit, transformer=["diffusers", "Transformer2DModel"])
    assert load_backend(dit).learned_variance
    sd3 = saved(tiny_sd3(text_encoder_3=None, tokenizer_3=None), tmp_path / "sd3")
    assert load_backend(sd3).prediction_type == "flow"


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_an_adapter_beside_the_weights_is_refused(folder, load, part):
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "someone/else"}
    (folder / part / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(InputError, match=rf"{part} holds an adapter.*load_lora_weights"):
        load()


@pytest.mark.parametrize(
    "file",
    ["unet/diffusers.py", "text_encoder/transformers.py", "text_encoder/custom_generate/a.py"],
)
def test_code_beside_the_weights_is_refused(folder, load, file):
    """It would pose as a library, or replace a method of the network."""
    marker = folder.parent / "imported"
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"open({str(marker)!r}, 'w')")
    with pytest.raises(InputError, match=r"is custom code, which is never run"):
        load()
    assert not marker.exists()


@pytest.mark.parametrize(
    "option",
    [
        {"use_safetensors": False},
        {"use_safetensors": None},
        {"custom_pipeline": "someone/pipeline"},
        {"custom_pipeline": "someone/pipeline", "trust_remote_code": True},
        {"trust_remote_code": True},
        {"use_onnx": True},
        {"use_flashpack": True},
    ],
    ids=str,
)
def test_an_option_that_runs_code_or_reads_pickles_is_refused(folder, option):
    """The caller's own option, too: what is promised of folders holds whatever the options."""
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    torch.save(weights, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=rf"{next(iter(option))}=.*is refused.*DiffusersBackend\("):
        DiffusersBackend.from_pretrained(folder, **option)
    harmless = {"use_safetensors": True, "custom_pipeline": None, "trust_remote_code": False}
    assert DiffusersBackend.from_pretrained(folder, **harmless).image_size == (16, 16)


@pytest.mark.parametrize("entry", ["ab", {"a": 1}, None, [], ["a"]], ids=str)
def test_components_that_are_not_used_are_named_properly(folder, entry):
    edit_index(folder, safety_checker=entry)
    with pytest.raises(InputError, match=r"gives safety_checker neither a library and a class"):
        load_backend(folder)


@pytest.mark.parametrize("entry", [["a", "b"], [["a"], {}]], ids=str)
def test_components_that_are_not_used_are_never_imported(folder, entry, monkeypatch):
    marker = folder.parent / "imported"
    (folder.parent / "a.py").write_text(f"open({str(marker)!r}, 'w')\nb = None")
    monkeypatch.syspath_prepend(folder.parent)
    edit_index(folder, safety_checker=entry, image_encoder=entry, feature_extractor=entry)
    assert load_backend(folder).pipeline.safety_checker is None
    assert not marker.exists()


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_encoder", {"transformers_weights": "a.safetensors"}, "weight file of its own"),
        ("text_encoder", {"attn_implementation": "someone/kernel"}, "attention code from the Hub"),
        (
            "text_encoder",
            {"text_config": {"_attn_implementation": "someone/kernel"}},
            "attention code from the Hub",
        ),
        ("unet", {"block_out_channels": "many"}, "unet of .* cannot be loaded as UNet2D"),
        ("unet", {"block_out_channels": []}, "unet of .* cannot be loaded as UNet2D"),
        ("unet", {"block_out_channels": [-1, 8]}, "unet of .* cannot be loaded as UNet2D"),
        *(
            ("unet", {"sample_size": size}, r"json of the unet: sample_size=.* must be a pos")
            for size in ("x", -8, 0, [8], [8, 0])
        ),
        ("vae", {"norm_num_groups": 0}, "vae of .* cannot be loaded as AutoencoderKL"),
        ("text_encoder", {"hidden_size": "wide"}, "text_encoder of .* cannot be loaded as CLIPT"),
    ],
    ids=str,
)
def test_configurations_that_make_no_sense_are_refused(folder, load, part, change, message):
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_schedule": "none"}, r"scheduler of .* cannot be loaded as DDIMScheduler"),
        ({"trained_betas": True}, r"betas of DDIMScheduler have shape \(\)"),
        ({"trained_betas": [[0.1], [0.2]]}, r"betas of DDIMScheduler have shape \(2, 1\)"),
    ],
)
def test_scheduler_of_no_sense_is_refused(folder, change, message):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        load_backend(folder)


def test_options_of_a_pipeline_of_no_sense_are_refused(folder, load):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "requires_safety_checker": []}))
    with pytest.raises(InputError, match="cannot be loaded as StableDiffusionPipeline"):
        load()


DAMAGED = {"nested": "[" * 100_000, "binary": "\udcff", "cut": '{"a": ', "list": "[]"}
FILES = (
    "model_index.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
)


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("file", FILES)
def test_damaged_json_is_named(folder, file, damage):
    (folder / file).write_bytes(DAMAGED[damage].encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=rf"{Path(file).name} of .* (is not valid JSON|holds a J)"):
        load_backend(folder)


@pytest.mark.parametrize("name", ["/", "..", "", "a/b", "x" * 5000, "\0", "é"])
def test_names_in_the_index_lead_nowhere(folder, name):
    edit_index(folder, **{name: ["diffusers", "UNet2DConditionModel"]})
    assert load_backend(folder).prediction_type == "epsilon"


READ = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
)


@pytest.mark.parametrize("file", READ)
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nothing", "link to a device"])
def test_only_files_are_read(folder, file, kind):
    """A pipe would block for ever."""
    path = folder / file
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind.endswith("device") else folder / "nothing")
    with pytest.raises(InputError, match=path.name):
        load_backend(folder)


def test_a_pipe_in_place_of_a_lone_configuration_is_not_read(folder):
    (folder / "unet" / "config.json").unlink()
    os.mkfifo(folder / "unet" / "config.json")
    with pytest.raises(InputError, match=r"config\.json is not a file"):
        load_backend(folder / "unet")


def test_files_may_be_links_as_in_the_hubs_cache(folder, saved_once):
    expected = sample_output(load_backend(folder))
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        if path.is_file():
            path.rename(blobs / str(number))
            path.symlink_to(blobs / str(number))
    torch.testing.assert_close(sample_output(load_backend(folder)), expected)


@pytest.mark.parametrize("length", [10**9, MAX_TOKENS + 1])
def test_a_tokenizer_of_more_tokens_than_positions_is_refused(folder, load, length):
    """Prompts are padded to that many tokens: 10^9 would end the process for want of memory."""
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))
    with pytest.raises(InputError, match=rf"allows {length} tokens .* has {MAX_TOKENS} positions"):
        load()
