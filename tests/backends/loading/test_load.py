"""From a name to a backend: what is loaded, what never is, and what each error says."""

import gc
import os
import pickle
import shutil
import subprocess
import sys
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
    conditional_unet,
    edit_index,
    sample_output,
    saved,
    tiny_sd,
    tiny_sdxl,
)

pytestmark = pytest.mark.usefixtures("empty_model_cache")


@pytest.fixture
def folder(tmp_path):
    return Path(saved(tiny_sd(), tmp_path / "model"))


@pytest.fixture
def spy(monkeypatch):
    """Calls of StableDiffusionPipeline.from_pretrained as (name, options)."""
    calls = []

    def from_pretrained(cls, name, **options):
        calls.append((name, options))
        return tiny_sd()

    monkeypatch.setattr(
        diffusers.StableDiffusionPipeline, "from_pretrained", classmethod(from_pretrained)
    )
    return calls


def write_decoy(folder, module, marker):
    """A module that leaves a file behind when it is imported."""
    code = f"open({str(marker)!r}, 'w').close()\nclass Evil:\n    pass\n"
    (folder / f"{module}.py").write_text(code)


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


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none", "none", "a/b/none"):
        with pytest.raises(FileNotFoundError, match=r"no folder .*none'.*model_index\.json"):
            load_backend(name)


@pytest.mark.parametrize(
    ("part", "files", "message"),
    [
        ("unet", (), r"one component \(UNet2DConditionModel\) of a pipeline; give its parent"),
        ("scheduler", (), r"one component \(DDIMScheduler\)"),
        ("text_encoder", (), r"one component \(CLIPTextModel\)"),
        ("new", ("sd.safetensors",), r"holds sd\.safetensors.*from_single_file"),
        ("new", ("a.txt", "b.txt"), r"holds a\.txt, b\.txt; give a folder.*save_pretrained"),
        ("new", (), r"holds nothing; give a folder"),
    ],
    ids=["unet", "scheduler", "text_encoder", "checkpoint", "files", "empty"],
)
def test_a_folder_without_an_index_says_what_it_is(folder, part, files, message):
    (folder / "new").mkdir()
    for name in files:
        (folder / "new" / name).touch()
    with pytest.raises(ValueError, match=r"no model_index\.json.*" + message):
        load_backend(folder / part)


def test_a_checkpoint_file_points_to_from_single_file(tmp_path):
    (tmp_path / "sd.safetensors").touch()
    with pytest.raises(ValueError, match=r"is a file.*from_single_file.*DiffusersBackend"):
        load_backend(tmp_path / "sd.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"_class_name": ', r"is not valid JSON \(Expecting value: line 1 column 17"),
        ("[1, 2]", "holds a JSON list, not an object"),
        ("{}", "names no pipeline class"),
    ],
)
def test_a_malformed_index_is_reported(folder, text, message):
    (folder / "model_index.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_backend(folder)


def test_an_unknown_pipeline_class_lists_those_known(folder):
    edit_index(folder, _class_name="NewPipeline")
    with pytest.raises(ValueError, match=r"is a NewPipeline.*StableDiffusionPipeline.*Function"):
        load_backend(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"unet": ["my_module", "Evil"]},
        {"text_encoder": ["my_module", "Evil"]},
        {"_class_name": ["my_module", "Evil"]},
        {"_class_name": "Evil"},
    ],
    ids=str,
)
def test_code_outside_diffusers_and_transformers_is_never_imported(folder, monkeypatch, entries):
    marker = folder.parent / "imported"
    for place in (folder, folder / "unet", folder / "text_encoder"):
        write_decoy(place, "my_module", marker)
    monkeypatch.syspath_prepend(folder)
    edit_index(folder, **entries)
    with pytest.raises(ValueError, match="Evil"):
        load_backend(folder)
    assert not marker.exists() and "my_module" not in sys.modules


def test_unused_components_are_neither_vetted_nor_imported(folder, monkeypatch):
    marker = folder.parent / "imported"
    write_decoy(folder, "my_module", marker)
    monkeypatch.syspath_prepend(folder)
    edit_index(folder, safety_checker=["my_module", "Evil"], extra=["my_module", "Evil"])
    assert load_backend(folder).pipeline.safety_checker is None
    assert not marker.exists() and "my_module" not in sys.modules


def test_code_that_poses_as_a_trusted_library_is_never_imported(folder):
    marker = folder.parent / "imported"
    write_decoy(folder / "unet", "diffusers", marker)
    with pytest.raises(ValueError, match="custom code"):
        load_backend(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "entry", [None, [None, None], ["diffusers"], "diffusers", ["diffusers", 1]]
)
def test_a_component_that_the_index_does_not_name_is_reported(folder, entry):
    edit_index(folder, unet=entry)
    with pytest.raises(ValueError, match=r"names no unet.*save_pretrained"):
        load_backend(folder)


def test_a_missing_component_folder_is_named(folder):
    for path in (folder / "vae").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"vae has no weights"):
        load_backend(folder)
    (folder / "vae").rmdir()
    with pytest.raises(FileNotFoundError, match=r"has no folder 'vae'"):
        load_backend(folder)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt", "model.pt"])
def test_pickled_weights_are_refused_before_anything_is_loaded(folder, spy, name):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / name).write_bytes(b"")
    message = rf"unet.{name} is not safetensors.*safe_serialization=True"
    with pytest.raises(ValueError, match=message):
        load_backend(folder)
    assert spy == []


def test_importing_the_package_imports_no_model_library():
    code = (
        "import sys, diffusion_classifier, diffusion_classifier.backends.embedded;"
        "print([m for m in ('diffusers', 'transformers') if m in sys.modules])"
    )
    path = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.stdout.strip() == "[]", result.stderr


def inpainting_unet(pipeline):
    return {"unet": conditional_unet(in_channels=9)}


def refiner_unet(pipeline):
    """The refiner reads 5 numbers: size, corner and a score of aesthetics."""
    changes = {"projection_class_embeddings_input_dim": 5 * 8 + 8}
    return {"unet": conditional_unet(**{**pipeline.unet.config, **changes})}


@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (tiny_sd, inpainting_unet, "unet takes 9 channels and the autoencoder gives 4: .* a mask"),
        (tiny_sdxl, inpainting_unet, "unet takes 9 channels and the autoencoder gives 4: .* mask"),
        (tiny_sdxl, refiner_unet, "reads 5 numbers of size and crop, not the 6 .*refiner"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_networks_that_need_more_than_a_prompt_are_refused(
    tmp_path, build, change, message, in_memory
):
    pipeline = build()
    pipeline.register_modules(**change(pipeline))
    with pytest.raises(ValueError, match=message):
        _ = DiffusersBackend(pipeline) if in_memory else load_backend(saved(pipeline, tmp_path))


@pytest.mark.parametrize("options", [{}, {"free_text_encoder": True}], ids=str)
def test_a_refiner_without_its_first_text_encoder_is_refused(tmp_path, options):
    folder = saved(tiny_sdxl(), tmp_path)
    edit_index(folder, text_encoder=[None, None], tokenizer=[None, None])
    message = r"names no text_encoder, .*\(The refiner of SDXL has none: use the base model\.\)"
    with pytest.raises(ValueError, match=message):
        DiffusersBackend.from_pretrained(folder, **options)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("StableDiffusionXLImg2ImgPipeline", r"is the refiner .* use the base model"),
        ("StableDiffusionInpaintPipeline", r"inpaints.*use the text-to-image model"),
        ("StableDiffusionControlNetPipeline", r"is controlled by a second image.*text-to-image"),
    ],
)
def test_pipelines_of_other_tasks_say_what_to_use_instead(folder, kind, message):
    edit_index(folder, _class_name=kind)
    with pytest.raises(ValueError, match=rf"is a {kind}, which is not supported: it {message}"):
        load_backend(folder)
