"""Weights that are missing, of another shape or too many: never a prediction from noise."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.errors import InputFileError, MissingFileError
from tests.support.other_pipelines import tiny_sd3
from tests.support.pipelines import sample_output, saved, tiny_sd


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    saved(tiny_sd3(), root / "sd3")
    return Path(saved(tiny_sd(), root / "sd")).parent


@pytest.fixture
def folder(saved_once, tmp_path):
    return Path(shutil.copytree(saved_once / "sd", tmp_path / "model"))


def rewrite(part, change, pattern="*.safetensors"):
    """Save a component's weights again after ``change(tensors)``."""
    (path,) = part.glob(pattern)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def configure(part, **entries):
    path = part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


LOST = [
    ("unet", "conv_in.weight"),
    ("vae", "quant_conv.weight"),
    ("text_encoder", "embeddings.token_embedding.weight"),
    ("text_encoder", "final_layer_norm.bias"),
]


# diffusers loads the one way with accelerate, the other without
@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize(("part", "key"), LOST)
def test_a_missing_tensor_is_named(folder, part, key, low_cpu_mem_usage):
    rewrite(folder / part, lambda tensors: tensors.pop(key))
    with pytest.raises(InputFileError, match=rf"weights of the {part} of .* lack '{key}'"):
        DiffusersBackend.from_pretrained(folder, low_cpu_mem_usage=low_cpu_mem_usage)


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
@pytest.mark.parametrize(("part", "key"), LOST[:3])
def test_a_tensor_of_another_shape_is_named(folder, part, key, low_cpu_mem_usage):
    rewrite(folder / part, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))
    with pytest.raises(InputFileError, match=rf"the {part} of .*{key}"):
        DiffusersBackend.from_pretrained(folder, low_cpu_mem_usage=low_cpu_mem_usage)


def test_of_several_missing_tensors_the_first_is_named(folder):
    rewrite(folder / "unet", lambda tensors: [tensors.pop(k) for k in sorted(tensors)[:3]])
    with pytest.raises(InputFileError, match=r"lack 'conv_in\.bias' and 2 more"):
        DiffusersBackend.from_pretrained(folder)


def test_tensors_that_no_network_needs_are_ignored(folder):
    """Such as the other half of CLIP, or the positions that older releases saved."""
    expected = sample_output(DiffusersBackend.from_pretrained(folder))
    more = {
        "vision_model.encoder.layers.0.layer_norm1.bias": torch.zeros(2),
        "text_model.embeddings.position_ids": torch.arange(24)[None],
    }
    rewrite(folder / "text_encoder", lambda tensors: tensors.update(more))
    rewrite(folder / "unet", lambda tensors: tensors.update(nonsense=torch.zeros(2)))
    torch.testing.assert_close(sample_output(DiffusersBackend.from_pretrained(folder)), expected)


@pytest.mark.parametrize(
    ("part", "entries", "key"),
    [
        ("text_encoder", {"num_hidden_layers": 1}, r"encoder\.layers\.1\."),
        ("unet", {"transformer_layers_per_block": 1}, r"transformer_blocks\.1\."),
    ],
)
def test_a_configuration_with_fewer_layers_than_weights_is_refused(folder, part, entries, key):
    """The layers beyond would be skipped without a word."""
    if part == "unet":
        config = diffusers.UNet2DConditionModel.load_config(folder / "unet")
        unet = diffusers.UNet2DConditionModel.from_config(config, transformer_layers_per_block=2)
        unet.save_pretrained(folder / "unet")
    configure(folder / part, **entries)
    with pytest.raises(InputFileError, match=rf"{part} of .* config\.json does not count.*{key}"):
        DiffusersBackend.from_pretrained(folder)


def test_tied_weights_are_needed_once(saved_once, tmp_path):
    """The embedding of T5 has two names; files hold either."""
    folder = Path(shutil.copytree(saved_once / "sd3", tmp_path / "model"))
    embedding = DiffusersBackend.from_pretrained(folder).pipeline.text_encoder_3.shared.weight
    part, other = folder / "text_encoder_3", "encoder.embed_tokens.weight"
    rewrite(part, lambda tensors: tensors.update({other: tensors.pop("shared.weight")}))
    again = DiffusersBackend.from_pretrained(folder).pipeline.text_encoder_3.encoder
    torch.testing.assert_close(again.embed_tokens.weight, embedding)
    rewrite(part, lambda tensors: tensors.pop(other))
    with pytest.raises(InputFileError, match=rf"text_encoder_3 of .* lack '{other}'"):
        DiffusersBackend.from_pretrained(folder)


def test_names_of_older_releases_are_honoured(folder):
    """Diffusers renamed the projections of attention, transformers dropped a prefix."""
    expected = sample_output(DiffusersBackend.from_pretrained(folder))
    older = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def rename(tensors):
        for name in [name for name in tensors if ".attentions." in name]:
            old = name
            for new_part, old_part in older.items():
                old = old.replace(new_part, old_part)
            tensors[old] = tensors.pop(name)

    rewrite(folder / "vae", rename)
    assert any(".query." in name for name in load_file(next((folder / "vae").glob("*.safe*"))))
    rewrite(
        folder / "text_encoder",
        lambda tensors: [
            tensors.update({f"text_model.{name}": tensors.pop(name)}) for name in list(tensors)
        ],
    )
    torch.testing.assert_close(sample_output(DiffusersBackend.from_pretrained(folder)), expected)


def test_variants_and_shards_are_checked_too(folder):
    pipeline = DiffusersBackend.from_pretrained(folder).pipeline
    pipeline.unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size="100KB")
    assert len(list((folder / "unet").glob("*.fp16-*"))) > 1
    variant = DiffusersBackend.from_pretrained(folder, variant="fp16").pipeline.unet
    torch.testing.assert_close(variant.conv_in.weight, pipeline.unet.conv_in.weight)
    rewrite(folder / "unet", lambda tensors: tensors.popitem(), "*.fp16-00001-of-*")
    with pytest.raises(InputFileError, match=r"fp16-00001-of-.* has no '.*', though .*index"):
        DiffusersBackend.from_pretrained(folder, variant="fp16")
    DiffusersBackend.from_pretrained(folder)  # the other weights are whole


def test_a_text_encoder_that_is_loaded_later_is_checked_then(folder):
    backend = DiffusersBackend.from_pretrained(folder, free_text_encoder=True)
    rewrite(folder / "text_encoder", lambda t: t.pop("embeddings.token_embedding.weight"))
    with pytest.raises(InputFileError, match=r"text_encoder of .* lack"):
        backend.encode_classes(["cat"], ["a cat"])


@pytest.mark.parametrize(
    ("kept", "missing"),
    [((), "vocab.json and merges.txt"), (("vocab.json",), "merges.txt")],
)
def test_a_tokenizer_without_its_vocabulary_is_refused(folder, kept, missing):
    part = folder / "tokenizer"
    (part / "tokenizer.json").unlink()
    for name in kept:
        (part / name).write_text("{}")
    with pytest.raises(MissingFileError, match=f"no tokenizer.json, nor {missing}"):
        DiffusersBackend.from_pretrained(folder)


def test_other_loading_is_left_alone(folder, monkeypatch):
    """While one model loads, another thread may load its own from elsewhere, however incomplete."""
    other = shutil.copytree(folder, folder.parent / "other")
    rewrite(other / "unet", lambda tensors: tensors.pop("conv_in.bias"))
    rewrite(other / "text_encoder", lambda tensors: tensors.pop("final_layer_norm.bias"))
    before = [kind.__dict__["from_pretrained"] for kind in (diffusers.ModelMixin, MODEL)]
    original, loaded = diffusers.StableDiffusionPipeline.from_pretrained, []

    def from_pretrained(cls, *args, **options):
        loaded.append(diffusers.UNet2DConditionModel.from_pretrained(other / "unet"))
        loaded.append(transformers.CLIPTextModel.from_pretrained(other / "text_encoder"))
        return original(*args, **options)

    monkeypatch.setattr(
        diffusers.StableDiffusionPipeline, "from_pretrained", classmethod(from_pretrained)
    )
    DiffusersBackend.from_pretrained(folder)
    assert [type(network).__name__ for network in loaded] == [
        "UNet2DConditionModel",
        "CLIPTextModel",
    ]
    after = [kind.__dict__["from_pretrained"] for kind in (diffusers.ModelMixin, MODEL)]
    assert all(a is b for a, b in zip(after, before, strict=True))


MODEL = transformers.PreTrainedModel
