"""Pipelines of the components of a text-to-image pipeline, and those that read more."""

import json
from pathlib import Path

import diffusers
import pytest
import torch

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.families.refused import OTHERS, REFUSED
from diffusion_classifier.backends.families.registry import FAMILIES, find_family
from diffusion_classifier.backends.resolve import load_backend
from tests.support.family_cases import CASES
from tests.support.pipelines import edit_index, epsilon_errors, saved

# a case of each family, and the pipelines of the same components
SIBLINGS = {
    "sd": (
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionPAGImg2ImgPipeline",
        "StableDiffusionSAGPipeline",
        "StableDiffusionPanoramaPipeline",
        "StableDiffusionParadigmsPipeline",
    ),
    "lcm": ("LatentConsistencyModelImg2ImgPipeline",),
    "sdxl": (
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLPAGPipeline",
        "StableDiffusionXLPAGImg2ImgPipeline",
    ),
    "kolors": ("KolorsImg2ImgPipeline", "KolorsPAGPipeline"),
    "sd3": (
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3PAGPipeline",
        "StableDiffusion3PAGImg2ImgPipeline",
    ),
    "flux": ("FluxImg2ImgPipeline", "FluxKontextPipeline"),
    "pixart_sigma": ("PixArtSigmaPAGPipeline",),
    "sana": ("SanaPAGPipeline",),
    "qwen_image": ("QwenImageImg2ImgPipeline",),
    "hunyuan": ("HunyuanDiTPAGPipeline",),
    "z_image": ("ZImageImg2ImgPipeline",),
    "flux2_klein": ("Flux2KleinKVPipeline",),
    "chroma": ("ChromaImg2ImgPipeline",),
    "deepfloyd": ("IFImg2ImgPipeline",),
}


@pytest.fixture(scope="module", params=SIBLINGS)
def original(request, tmp_path_factory):
    """A text-to-image pipeline: its case's name, its folder and its errors."""
    case = CASES[request.param]
    folder = saved(case.build(), tmp_path_factory.mktemp("sibling"))
    return request.param, folder, errors(load_backend(folder), case)


def errors(backend, case):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, *case.pixels, generator=generator) * 2 - 1
    return epsilon_errors(backend, images, case.labels[:2], [480])


def test_pipelines_of_the_same_components_give_the_same_errors(original):
    name, folder, expected = original
    for sibling in SIBLINGS[name]:
        edit_index(folder, _class_name=sibling)
        backend = load_backend(folder)
        assert type(backend.pipeline).__name__ == sibling
        assert (errors(backend, CASES[name]) - expected).abs().max() == 0.0
        assert type(backend._family) is type(find_family([sibling], ""))


def test_all_siblings_are_tested():
    built = {type(case.build()).__name__ for case in CASES.values()} | {"DDIMPipeline"}
    listed = {name for family in FAMILIES for name in family.pipelines}
    assert listed - built == {name for names in SIBLINGS.values() for name in names}


def test_names_exist_in_diffusers():
    names = {*REFUSED, *OTHERS, *(kind for _, kind in REFUSED.values())}
    assert names - set(dir(diffusers)) == set()
    assert len(REFUSED) >= 50


def test_every_pipeline_of_diffusers_has_a_family_or_a_reason():
    """Those that draw images from prompts or classes, and those of films and sounds as well."""
    names = {name for name in dir(diffusers) if name.endswith("Pipeline")} - {"DiffusionPipeline"}
    assert len(names) > 300
    general, supported = set(), {name for family in FAMILIES for name in family.pipelines}
    for name in names - supported:
        with pytest.raises(ValueError, match=rf"^a {name}, which is not supported") as caught:
            find_family([name], f"a {name}")
        message = str(caught.value)
        assert message.endswith(".") and not message.endswith("..")
        if "known pipelines are" in message:
            general.add(name)
    assert general == set()  # give each a family, or a line of refused.py


def test_names_are_listed_once():
    supported = {name for family in FAMILIES for name in family.pipelines}
    assert not (OTHERS.keys() & REFUSED.keys() or supported & {*OTHERS, *REFUSED})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Kandinsky5I2IPipeline", r"reads a second image; .*Kandinsky5T2IPipeline\.from_pipe"),
        ("Kandinsky5T2VPipeline", "makes films, not images"),
        ("Kandinsky5I2VPipeline", "makes films, not images"),
        ("BriaFibo2Pipeline", "draws images and edits others, and no adapter .* register_family"),
        ("KandinskyV22CombinedPipeline", "reads the embedding of an image"),
        ("SanaSprintPipeline", "distilled to jump to an image"),
        ("FluxModularPipeline", "is modular"),
    ],
)
def test_other_kinds_are_refused_with_their_reason(name, why, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(ValueError, match=rf"is a {name}, which is not supported: .*{why}"):
        load_backend(tmp_path)


@pytest.mark.parametrize("name", ["StableDiffusionInpaintPipeline", "FluxControlNetPipeline"])
def test_what_else_a_pipeline_reads_and_the_way_out_are_named(name, tmp_path):
    what, text_to_image = REFUSED[name]
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    message = rf"is a {name}, .* reads {what}; .*{text_to_image}\.from_pipe\(pipeline\)"
    with pytest.raises(ValueError, match=message):
        load_backend(Path(tmp_path))


def test_the_way_out_leads_to_the_same_errors():
    pipeline = CASES["sd"].build()
    inpaint = diffusers.StableDiffusionInpaintPipeline.from_pipe(pipeline)
    with pytest.raises(ValueError, match=r"reads a mask; .*StableDiffusionPipeline.from_pipe"):
        DiffusersBackend(inpaint)
    out = DiffusersBackend(diffusers.StableDiffusionPipeline.from_pipe(inpaint))
    expected = errors(DiffusersBackend(pipeline), CASES["sd"])
    assert torch.equal(errors(out, CASES["sd"]), expected)


def test_the_way_out_does_not_accept_a_network_that_reads_a_mask():
    parts = {**CASES["sd"].build().components}
    config = {**parts["unet"].config, "in_channels": 9}
    parts["unet"] = diffusers.UNet2DConditionModel.from_config(config)
    pipeline = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    with pytest.raises(ValueError, match=r"takes 9 channels and the autoencoder gives 4.*a mask"):
        DiffusersBackend(pipeline)
    parts = {**CASES["kandinsky5"].build().components}
    parts["transformer"] = diffusers.Kandinsky5Transformer3DModel.from_config(
        parts["transformer"].config, visual_cond=True
    )  # 4 channels of another image and a mask
    with pytest.raises(ValueError, match=r"takes 9 channels and the autoencoder gives 4"):
        DiffusersBackend(diffusers.Kandinsky5T2IPipeline(**parts))
