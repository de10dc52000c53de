"""What is never loaded, and what each error says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers.utils import DummyObject, import_utils, requires_backends

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from tests.support import tier_two_flows
from tests.support.pipelines import (
    conditional_unet,
    edit_index,
    saved,
    tiny_sd,
    tiny_sdxl,
)

pytestmark = pytest.mark.usefixtures("empty_model_cache")


def write_decoy(folder, module, marker):
    """A module that leaves a file behind when it is imported."""
    code = f"open({str(marker)!r}, 'w').close()\nclass Evil:\n    pass\n"
    (folder / f"{module}.py").write_text(code)


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


def test_a_library_of_one_family_is_none_of_another(folder):
    edit_index(folder, text_encoder=["kolors", "ChatGLMModel"])
    with pytest.raises(
        ValueError, match=r"takes text_encoder from 'kolors'.*so that no other code"
    ):
        load_backend(folder)


def test_a_pipeline_whose_package_is_missing_names_it(folder, monkeypatch):
    class KolorsPipeline(metaclass=DummyObject):
        _backends = ("sentencepiece",)

        @classmethod
        def from_pretrained(cls, *args, **kwargs):
            requires_backends(cls, cls._backends)

    KolorsPipeline.__module__ = "diffusers.utils.dummy_objects"
    _, advice = import_utils.BACKENDS_MAPPING["sentencepiece"]
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "sentencepiece", (lambda: False, advice))
    monkeypatch.setattr("diffusers.KolorsPipeline", KolorsPipeline)
    edit_index(folder, _class_name="KolorsPipeline")
    with pytest.raises(ImportError, match="pip install sentencepiece"):
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
    message = rf"unet.{name} is not safetensors.*diffusion-classifier convert FOLDER"
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
        ("StableDiffusionInpaintPipeline", "reads a mask.*use the text-to-image model"),
        ("StableDiffusionControlNetPipeline", "reads a control image.*use the text-to-image"),
    ],
)
def test_pipelines_of_other_tasks_say_what_to_use_instead(folder, kind, message):
    edit_index(folder, _class_name=kind)
    with pytest.raises(ValueError, match=rf"is a {kind}, which is not supported: .*it {message}"):
        load_backend(folder)


@pytest.mark.parametrize("where", ["tokenizer_config.json", "parts/deep.json"])
def test_code_that_a_processor_would_ask_to_run_is_refused(tmp_path, where):
    """A processor loads its tokenizer by AutoTokenizer, which asks on the terminal to run code."""
    folder = Path(saved(tier_two_flows.tiny_qwen_image_21(), tmp_path / "model"))
    file = folder / "processor" / where
    file.parent.mkdir(exist_ok=True)
    content = json.loads(file.read_text()) if file.exists() else {}
    entry = {"a": [{"auto_map": {"AutoTokenizer": ["/somewhere--tok.MyTok", None]}}]}
    file.write_text(json.dumps(content | entry))
    with pytest.raises(ValueError, match=rf"{file.name} .*auto_map.*never run; remove"):
        load_backend(folder)


def test_a_word_of_a_vocabulary_may_be_auto_map(tmp_path):
    folder = Path(saved(tier_two_flows.tiny_qwen_image_21(), tmp_path / "model"))
    (folder / "processor" / "words.json").write_text('{"vocab": {"auto_map": 7}}')
    load_backend(folder)
