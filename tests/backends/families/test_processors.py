"""Processors of texts and images are read without torchvision, for prompts need texts alone."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.errors import InputValueError
from tests.support.family_cases import CASES
from tests.support.pipelines import saved

# What folders on the Hub hold beside the tokenizer, by the names of their classes.
IMAGES = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 14, "merge_size": 2}
FILMS = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 14, "merge_size": 2}
PIXTRAL = {"image_token": "[IMG]", "patch_size": 14, "spatial_merge_size": 2}
FILES = {
    "kandinsky5": (
        "tokenizer",
        {"preprocessor_config": IMAGES, "video_preprocessor_config": FILMS},
    ),
    "qwen_image_21": (
        "processor",
        {"processor_config": {"image_processor": IMAGES, "video_processor": FILMS}},
    ),
    "flux2": (
        "tokenizer",
        {
            "preprocessor_config": {"image_processor_type": "PixtralImageProcessorFast"},
            "processor_config": PIXTRAL,
        },
    ),
}


@pytest.fixture(params=FILES)
def made(request, tmp_path):
    """A tiny pipeline's case, its processor's class, and its folder with the files of real ones."""
    case, (part, files) = CASES[request.param], FILES[request.param]
    pipeline = case.build()
    kind = type(getattr(pipeline, part)).__name__
    saved(pipeline, tmp_path)
    for name, content in files.items():
        text = json.dumps({"processor_class": kind, **content})
        (tmp_path / part / f"{name}.json").write_text(text)
    return case, part, kind, tmp_path


def test_a_folder_names_the_class_of_transformers(made):
    _, part, kind, folder = made
    index = json.loads((folder / "model_index.json").read_text())
    assert index[part] == ["transformers", kind]


def test_the_whole_processor_needs_torchvision_and_gives_the_same_tokens(made):
    _, part, kind, folder = made
    if find_spec("torchvision") is None:
        with pytest.raises(ImportError, match="Torchvision"):
            getattr(transformers, kind).from_pretrained(folder / part)
        return
    whole = getattr(transformers, kind).from_pretrained(folder / part)
    half = getattr(load_backend(folder).pipeline, part)
    ids = [each(text=["a cat", "a dog"], return_tensors="pt").input_ids for each in (whole, half)]
    assert torch.equal(*ids)


def test_the_half_for_texts_is_read_and_encodes_alike(made):
    case, part, kind, folder = made
    expected = DiffusersBackend(case.build()).encode_classes(case.labels, case.labels)
    backend = load_backend(folder)
    got = backend.encode_classes(case.labels, case.labels)
    assert type(getattr(backend.pipeline, part)).__name__ == kind
    for name, tensor in expected.tensors.items():
        assert (got[name] - tensor).abs().max() == 0.0


def test_code_that_a_processor_names_is_refused(made):
    _, part, _, folder = made
    path = Path(folder) / part / "processor_config.json"
    path.write_text(json.dumps({"auto_map": {"AutoProcessor": "mine.Processor"}}))
    with pytest.raises(InputValueError, match=r"processor_config.json names Python code"):
        load_backend(folder)


def test_images_are_refused(made):
    _, part, kind, folder = made
    half = getattr(load_backend(folder).pipeline, part)
    with pytest.raises(InputValueError, match=rf"^images were given to the {kind} of"):
        half(images=["a.png"], text=["a cat"])
