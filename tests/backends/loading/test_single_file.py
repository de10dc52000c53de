"""A model in one file: the same errors as its folder, and one clear error for what is none."""

import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from joblib import Parallel, delayed
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.errors import InputFileError, InputValueError
from diffusion_classifier.pruners import NoPruning
from tests.support.original_flows import flow_file
from tests.support.original_names import single_file
from tests.support.other_pipelines import tiny_flux, tiny_sd3
from tests.support.pipelines import sample_output, tiny_sd, tiny_sdxl

pytestmark = pytest.mark.usefixtures("empty_model_cache")


@pytest.fixture
def file(tmp_path):
    return single_file(tiny_sd(), tmp_path / "model.safetensors")


def edited(file, change):
    tensors = load_file(file)
    save_file(change(tensors), file)


def test_a_file_predicts_as_the_pipeline_it_was_made_of(file):
    backend = load_backend(file)
    expected = sample_output(DiffusersBackend(tiny_sd()))
    torch.testing.assert_close(sample_output(backend), expected, rtol=1e-5, atol=1e-5)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own = DiffusersBackend(tiny_sd()).encode_images(images)
    torch.testing.assert_close(backend.encode_images(images), own, rtol=1e-5, atol=1e-5)


def wide_sdxl():
    """SDXL whose text encoders have different widths, by which diffusers tells them apart."""
    pipeline = tiny_sdxl()
    config = pipeline.text_encoder_2.config
    config.hidden_size = config.projection_dim = 24
    pipeline.text_encoder_2 = CLIPTextModelWithProjection(config).eval()
    widths = {"cross_attention_dim": 16 + 24, "projection_class_embeddings_input_dim": 6 * 8 + 24}
    pipeline.unet = UNet2DConditionModel(**{**pipeline.unet.config, **widths}).eval()
    return pipeline


def test_a_file_with_two_text_encoders_predicts_as_its_pipeline(tmp_path):
    pipeline = wide_sdxl()
    backend = load_backend(single_file(pipeline, tmp_path / "xl.safetensors"))
    expected = sample_output(DiffusersBackend(pipeline))
    torch.testing.assert_close(sample_output(backend), expected, rtol=1e-5, atol=1e-5)


def wide_sd3():
    """SD3.5 whose text encoders have different widths; the first one's projection is none."""
    pipeline = tiny_sd3()
    first, second = pipeline.text_encoder.config, pipeline.text_encoder_2.config
    first.projection_dim = 16
    second.hidden_size = second.projection_dim = 24
    third = pipeline.text_encoder_3.config
    third.d_model = 16 + 24
    pipeline.text_encoder = CLIPTextModelWithProjection(first).eval()
    pipeline.text_encoder.text_projection.weight.data = torch.eye(16)
    pipeline.text_encoder_2 = CLIPTextModelWithProjection(second).eval()
    pipeline.text_encoder_3 = T5EncoderModel(third).eval()
    changes = {
        "joint_attention_dim": 16 + 24,
        "pooled_projection_dim": 16 + 24,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0,),
    }
    config = {**pipeline.transformer.config, **changes}
    pipeline.transformer = SD3Transformer2DModel(**config).eval()
    return pipeline


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "transformer"])
@pytest.mark.parametrize("make", [tiny_sd3, wide_sd3], ids=["3", "3.5"])
def test_a_file_of_sd3_predicts_as_its_pipeline(tmp_path, make, whole):
    pipeline = make()
    inside = {"transformer", "vae"} if whole else {"transformer"}
    if whole and make is wide_sd3:
        inside |= {"text_encoder", "text_encoder_2", "text_encoder_3"}
    backend = load_backend(flow_file(pipeline, tmp_path / "sd3.safetensors", inside))
    expected = sample_output(DiffusersBackend(pipeline))
    torch.testing.assert_close(sample_output(backend), expected, rtol=0, atol=0)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own = DiffusersBackend(pipeline).encode_images(images)
    torch.testing.assert_close(backend.encode_images(images), own, rtol=0, atol=0)


def test_files_of_8_bits_compute_in_float32(tmp_path):
    """Of all weights, only those of the transformer are rounded to 3 bits of mantissa."""
    pipeline = tiny_sd3()
    file = flow_file(pipeline, tmp_path / "sd3.safetensors", {"transformer"})
    edited(file, lambda t: {k: v.to(torch.float8_e4m3fn) for k, v in t.items()})
    backend = load_backend(file)
    assert backend.dtype == torch.float32
    rounded = {
        k: v.to(torch.float8_e4m3fn).float() for k, v in pipeline.transformer.state_dict().items()
    }
    pipeline.transformer.load_state_dict(rounded)
    expected = sample_output(DiffusersBackend(pipeline))
    torch.testing.assert_close(sample_output(backend), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."], ids=["flux1-dev", "comfyui"])
def test_a_file_of_flux_holds_the_weights_of_its_transformer(tmp_path, prefix):
    """One block of each kind. diffusers reads Flux's own width only: 0.5 billion parameters."""
    pipeline = tiny_flux()
    width = {"num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    try:
        torch.set_default_dtype(torch.bfloat16)
        transformer = FluxTransformer2DModel(**{**pipeline.transformer.config, **width}).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    pipeline.transformer = transformer
    inside = {"transformer", "vae"} if prefix else {"transformer"}
    file = flow_file(pipeline, tmp_path / "flux.safetensors", inside, prefix)
    backend = DiffusersBackend.from_single_file(file, dtype=torch.bfloat16)
    found, own = backend.denoiser.state_dict(), transformer.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[key], own[key]) for key in own)
    file.unlink()  # a gigabyte, which pytest would keep


@pytest.mark.parametrize(
    ("own", "other", "what"),
    [
        (tiny_sd, wide_sdxl, ("CLIPTextModelWithProjection", "lack 'text_projection.weight'")),
        (
            wide_sdxl,
            tiny_sd,
            (
                "UNet2DConditionModel",
                "have the wrong shape for "
                "'down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight' and 7 more",
            ),
        ),
    ],
)
def test_a_config_folder_of_another_kind_gets_one_clear_error(tmp_path, own, other, what):
    file = single_file(own(), tmp_path / "own.safetensors")
    config = single_file(other(), tmp_path / "other.safetensors").with_suffix("")
    kind, fault = what
    with pytest.raises(InputFileError) as refused:
        DiffusersBackend.from_single_file(file, config=config)
    assert str(refused.value) == (
        f"the weights of the {kind} of {file} {fault}; with them it would predict at random: "
        "give the file and the config folder of the same model (config=), both whole."
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_files_of_half_precision_compute_in_float32(tmp_path, dtype):
    backend = load_backend(single_file(tiny_sd().to(dtype), tmp_path / "half.safetensors"))
    expected = sample_output(DiffusersBackend(tiny_sd()))
    assert backend.dtype == torch.float32
    torch.testing.assert_close(sample_output(backend), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("MODEL.SAFETENSORS", r"rename it to MODEL\.safetensors"),
        ("model.Safetensors", r"rename it to model\.safetensors"),
        ("MODEL.CKPT", "pickles.*diffusion-classifier convert"),
    ],
)
def test_a_suffix_in_capitals_says_what_to_do(file, name, advice):
    with pytest.raises(InputValueError, match=advice):
        DiffusionClassifier(file.rename(file.parent / name)).fit(None, ["a cat", "a dog"])


@pytest.mark.parametrize("place", ["config", "."])
def test_the_config_folder_is_found_beside_the_file(file, place):
    shutil.copytree(file.with_suffix(""), file.parent / place, dirs_exist_ok=True)
    shutil.rmtree(file.with_suffix(""))
    assert load_backend(file).image_size == (16, 16)


def test_a_file_is_loaded_again_from_pickles_and_saved_classifiers(file, tmp_path):
    config = file.with_suffix("").rename(tmp_path / "elsewhere")
    backend = DiffusersBackend.from_single_file(file, config=config)
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0)
    images = np.random.default_rng(0).random((2, 16, 16, 3))
    expected = clf.fit(None, ["a cat", "a dog"]).predict_proba(images)
    clf.save(tmp_path / "fitted")
    for twin in (pickle.loads(pickle.dumps(clf)), DiffusionClassifier.load(tmp_path / "fitted")):
        np.testing.assert_array_equal(twin.predict_proba(images), expected)


@pytest.mark.slow
def test_a_file_is_loaded_again_by_joblib_workers(file):
    clf = DiffusionClassifier(str(file), pruner=NoPruning(2), random_state=0, verbose=0)
    images = np.random.default_rng(0).random((4, 16, 16, 3))
    expected = clf.fit(None, ["a cat", "a dog"]).predict_proba(images)
    halves = Parallel(n_jobs=2, backend="loky")(
        delayed(clf.predict_proba)(part) for part in (images[:2], images[2:])
    )
    np.testing.assert_allclose(np.concatenate(halves), expected, rtol=1e-3)


def test_a_file_that_was_written_over_is_loaded_again_and_is_another_model(file):
    before = load_backend(file)
    assert load_backend(file) is before
    edited(file, lambda t: {name: tensor + 1 for name, tensor in t.items()})
    after = load_backend(file)
    assert after is not before and after.fingerprint() != before.fingerprint()


def test_a_file_of_the_denoiser_alone_takes_the_rest_from_its_folder(file):
    tiny_sd().save_pretrained(file.with_suffix(""))
    edited(file, lambda t: {k: v for k, v in t.items() if k.startswith("model.")})
    expected = sample_output(DiffusersBackend(tiny_sd()))
    torch.testing.assert_close(sample_output(load_backend(file)), expected, rtol=1e-5, atol=1e-5)


def lora(tensors):
    return {
        "lora_unet_down.lora_up.weight": torch.ones(2, 2),
        "lora_unet_down.alpha": torch.ones(1),
    }


HOSTILE = {
    "missing": (
        lambda t: t.pop("model.diffusion_model.out.2.bias") is None,
        r"lack 'conv_out.bias'",
    ),
    "shape": (
        lambda t: t.update({"model.diffusion_model.out.2.bias": torch.ones(9)}),
        r"have the wrong shape for 'conv_out.bias'.*give the file and the config folder",
    ),
    "no text encoder": (
        lambda t: {k: v for k, v in t.items() if not k.startswith("cond")},
        r"does not hold the text_encoder.*has no weights",
    ),
    "other names": (lambda t: {"some.weight": torch.ones(2)}, r"does not hold the|lack"),
    "lora": (lora, r"is an adapter \(LoRA\).*load_lora_weights"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_such_model_gets_one_clear_error(file, name):
    change, message = HOSTILE[name]
    kept = load_file(file)
    result = change(kept)
    save_file(result if isinstance(result, dict) else kept, file)
    with pytest.raises((OSError, ValueError), match=message):
        load_backend(file)


def test_a_truncated_file_is_named(file):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(OSError, match="is not a complete safetensors file"):
        load_backend(file)


def test_without_a_config_folder_the_error_says_how_to_get_one(file):
    shutil.rmtree(file.with_suffix(""))
    with pytest.raises(FileNotFoundError, match=r"needs a config folder.*hf download.*config="):
        load_backend(file)
    with pytest.raises(FileNotFoundError, match="has no model_index"):
        DiffusersBackend.from_single_file(file, config=file.parent)


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "bin"])
def test_pickles_are_refused_with_the_reason(tmp_path, suffix):
    (tmp_path / f"model.{suffix}").touch()
    with pytest.raises(ValueError, match=r"can run code.*diffusion-classifier convert FILE"):
        load_backend(tmp_path / f"model.{suffix}")


def test_without_accelerate_the_error_says_how_to_get_it(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"single files need accelerate.*pip install"):
        load_backend(file)


def test_a_component_of_a_folder_names_the_folder(tmp_path):
    tiny_sd().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is one component of a pipeline"):
        load_backend(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
