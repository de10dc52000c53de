"""From a name to a backend: what is loaded, how often, and with which options."""

import gc
import pickle
import shutil
import weakref
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, clear_model_cache, load_embedded
from diffusion_classifier.backends.loading import origin
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import (
    edit_index,
    sample_output,
    saved,
    tiny_sd,
)

pytestmark = pytest.mark.usefixtures("empty_model_cache")


def test_a_folder_loads_as_the_pipeline_that_was_saved(folder):
    backend = load_backend(folder)
    expected = sample_output(DiffusersBackend(tiny_sd()))
    torch.testing.assert_close(sample_output(backend), expected, rtol=1e-5, atol=1e-5)
    networks = [getattr(backend.pipeline, name) for name in ("vae", "text_encoder", "unet")]
    for network in networks:
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    assert networks[2].conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_is_loaded_once_per_folder_device_and_dtype(folder, monkeypatch):
    backend = load_backend(folder)
    monkeypatch.chdir(folder.parent)
    assert load_backend("./model") is backend
    assert load_backend(str(folder), torch.device("cpu"), torch.float32) is backend
    half = load_backend(folder, "cpu", torch.bfloat16)
    assert half is not backend and half.dtype == torch.bfloat16
    torch.testing.assert_close(
        sample_output(half).float(), sample_output(backend), rtol=0.05, atol=0.05
    )


def test_a_folder_that_was_written_over_is_loaded_again(folder):
    before = load_backend(folder)
    fitted = DiffusionClassifier(folder).fit(None, ["cat", "dog"])
    saved(tiny_sd("v_prediction"), folder)
    after = load_backend(folder)
    assert after is not before and after.prediction_type == "v_prediction"
    assert load_backend(folder) is after
    assert fitted.backend_.prediction_type == "epsilon"  # until it is fitted again
    assert fitted.fit(None, ["cat", "dog"]).backend_.prediction_type == "v_prediction"
    old = weakref.ref(before.pipeline)
    del before
    gc.collect()
    assert old() is None


def test_files_beside_a_model_are_no_reason_to_load_it_again(folder):
    backend = load_backend(folder)
    (folder / "notes.txt").write_text("a good model")
    DiffusionClassifier(folder, device="cpu").fit(None, ["cat", "dog"]).save(folder / "fitted")
    assert load_backend(folder) is backend


def test_weights_of_the_same_size_written_over_are_loaded_again(folder):
    before = load_backend(folder).pipeline.unet.conv_in.weight.clone()
    pipeline = tiny_sd()
    pipeline.unet.conv_in.weight.add_(1)
    saved(pipeline, folder)
    torch.testing.assert_close(load_backend(folder).pipeline.unet.conv_in.weight, before + 1)


def test_a_cleared_cache_frees_models_that_nobody_holds(folder):
    held, other = load_backend(folder), load_embedded()
    freed = weakref.ref(other.pipeline)
    del other
    clear_model_cache()
    gc.collect()
    assert freed() is None
    assert load_backend(folder) is not held


def test_a_pickle_of_a_model_that_has_changed_is_refused(folder):
    data = pickle.dumps(load_backend(folder))
    again = pickle.loads(pickle.dumps(pickle.loads(data)))  # nothing is loaded for it
    saved(tiny_sd("v_prediction"), folder)
    with pytest.raises(ValueError, match="is not the model that this was pickled with"):
        _ = again.pipeline


def test_from_pretrained_loads_weights_of_its_own(folder):
    first, second = (DiffusersBackend.from_pretrained(folder) for _ in range(2))
    assert first.pipeline.unet is not second.pipeline.unet


def test_dtype_is_float32_unless_asked_whatever_was_saved(tmp_path):
    folder = saved(tiny_sd().to(torch.float16), tmp_path)
    pipeline = DiffusersBackend.from_pretrained(folder).pipeline
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    dtype = {"unet": torch.bfloat16, "default": torch.float32}
    mixed = DiffusersBackend.from_pretrained(folder, dtype=dtype)
    assert mixed.dtype == torch.bfloat16 and mixed.pipeline.vae.dtype == torch.float32
    assert sample_output(mixed).dtype == torch.bfloat16


def test_the_safety_checker_of_real_checkpoints_is_never_loaded(folder, monkeypatch):
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    def refuse(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr(StableDiffusionSafetyChecker, "from_pretrained", refuse)
    edit_index(
        folder,
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
        requires_safety_checker=True,
    )
    pipeline = load_backend(folder).pipeline
    assert pipeline.safety_checker is pipeline.feature_extractor is pipeline.image_encoder is None


def test_loading_a_folder_prints_nothing(folder, capfd):
    load_backend(folder)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert diffusers.utils.logging.is_progress_bar_enabled()


def test_arguments_are_passed_on_to_diffusers(folder, spy):
    DiffusersBackend.from_pretrained(
        folder, revision="r", variant=None, token="t", dtype=torch.float16, low_cpu_mem_usage=False
    )
    ((name, options),) = spy
    assert name == str(folder)
    assert options == {
        "revision": "r",
        "variant": None,
        "token": "t",
        "dtype": torch.float16,
        "use_safetensors": True,
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "low_cpu_mem_usage": False,
    }


def test_variant_weights_are_loaded_when_asked_for(tmp_path):
    folder = saved(tiny_sd().to(torch.float16), tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").exists()
    backend = DiffusersBackend.from_pretrained(folder, variant="fp16")
    expected = sample_output(DiffusersBackend(tiny_sd()))
    torch.testing.assert_close(sample_output(backend), expected, rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match=r"variant 'fp16' only.*variant='fp16'"):
        load_backend(folder)


def test_a_component_given_by_the_user_replaces_the_folders(folder):
    scheduler = tiny_sd("v_prediction").scheduler
    shutil.rmtree(folder / "scheduler")
    backend = DiffusersBackend.from_pretrained(folder, scheduler=scheduler)
    assert backend.prediction_type == "v_prediction"


def test_a_pipeline_in_a_subfolder_is_found(folder):
    backend = DiffusersBackend.from_pretrained(folder.parent, subfolder="model")
    torch.testing.assert_close(sample_output(backend), sample_output(load_backend(folder)))
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*subfolder="):
        DiffusersBackend.from_pretrained(folder.parent, subfolder="nowhere")


def test_an_adapter_is_part_of_which_model_it_is(folder, tmp_path):
    """As diffusers says it: ``peft_config`` of a network holds its adapters by name."""
    backend = DiffusersBackend.from_pretrained(folder)
    plain, clf = backend.identity(), DiffusionClassifier(backend, pruner=NoPruning(2))
    backend.pipeline.unet.peft_config = {"style": None}
    adapted = backend.identity()
    assert {name for name in plain if plain[name] != adapted[name]} == {"config_sha256"}
    copy = pickle.loads(pickle.dumps(clf.fit(None, ["cat", "dog"])))
    with pytest.raises(ValueError, match=r"or an adapter \(LoRA\).*fuse it and save the pipeline"):
        copy.predict(np.zeros((1, 16, 16, 3)))
    clf.save(tmp_path / "fitted")
    with pytest.raises(ValueError, match=r"the backbone is not the one that .* was saved with"):
        DiffusionClassifier.load(tmp_path / "fitted")
    loaded = DiffusionClassifier.load(tmp_path / "fitted", backend=backend)
    assert len(loaded.predict(np.zeros((1, 16, 16, 3)))) == 1
    backend.pipeline.unet.peft_config = {}
    assert backend.identity() == plain


@pytest.mark.filterwarnings("ignore:the model does not know")
def test_the_embedded_model_is_loaded_by_name_with_its_own_template(folder, monkeypatch):
    monkeypatch.setitem(origin.SHIPPED_FOLDERS, origin.EMBEDDED, Path(folder))
    first, second = load_embedded(), load_embedded()
    assert first.default_template == "a {}" and first.pipeline is second.pipeline
    assert torch.equal(sample_output(first), sample_output(load_backend(folder)))
    assert load_backend(folder).default_template == "a photo of a {}"
    data = pickle.dumps(first)
    assert str(folder).encode() not in data  # it means the same model on another machine
    assert first.identity()["name"] == "embedded"
    again = pickle.loads(data)
    assert again.default_template == "a {}" and again.pipeline is first.pipeline
