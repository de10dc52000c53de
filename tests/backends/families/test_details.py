"""What only some families of pipelines have: class names, masks, sizes, spare encoders."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.testing.own_call import watched
from tests.support import other_pipelines, pipelines, tier_two_flows, tier_two_pipelines
from tests.support.family_cases import CASES
from tests.support.other_pipelines import class_unet, flux_transformer
from tests.support.pipelines import PROMPTS, edit_index, saved


def class_labels(backend, *labels):
    return backend.encode_classes(labels, labels)["class_labels"].tolist()


@pytest.fixture(scope="module")
def dit(tmp_path_factory):
    return load_backend(saved(other_pipelines.tiny_dit(), tmp_path_factory.mktemp("dit")))


def test_classes_are_found_by_any_of_their_names_or_their_index(dit):
    assert class_labels(dit, "tench", "Tinca tinca", "tench, Tinca tinca", "0", "0.0") == [0] * 5
    assert class_labels(dit, "TENCH", "Black Grouse", " tench ") == [0, 5, 0]
    assert class_labels(dit, "3", "4") == [3, 4]


def test_capitals_decide_between_classes_that_they_alone_tell_apart(dit):
    assert class_labels(dit, "Cardigan", "cardigan", "cardigan welsh corgi") == [2, 3, 2]
    with pytest.raises(ValueError, match=r"'CARDIGAN' is the name of classes 2, 3"):
        class_labels(dit, "CARDIGAN")


def test_a_name_of_two_classes_is_refused_with_both(dit):
    with pytest.raises(ValueError, match=r"'crane' is the name of classes 1, 4.*\{'crane': '1'\}"):
        class_labels(dit, "tench", "crane")


def test_an_unknown_class_is_refused_with_names_close_to_it(dit):
    with pytest.raises(ValueError, match=r"'tensh' is not a class.*Did you mean 'tench'\?"):
        class_labels(dit, "tensh")
    with pytest.raises(ValueError, match=r"not sentences.*an index from 0 to 5"):
        class_labels(dit, "a photo of a zebra")
    for index in ("6", "-1", "1.5"):
        with pytest.raises(ValueError, match=f"'{index}' is not a class"):
            class_labels(dit, index)


def test_the_empty_prompt_is_the_class_that_guidance_was_trained_with(dit):
    assert class_labels(dit, "") == [6]
    z, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    output = dit.forward(z, t, dit.encode_classes([""], [""]))
    own = dit.pipeline.transformer(z, timestep=t, class_labels=torch.tensor([6])).sample[:, :4]
    assert torch.equal(output, own)


def test_integer_labels_are_indices_and_warn_of_nothing(dit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = DiffusionClassifier(dit, pruner=NoPruning(max_draws=2), random_state=0)
        clf.fit(None, [5, 0, 3])
    assert clf.prompts_ == {0: ["0"], 3: ["3"], 5: ["5"]}
    by_name = copy.copy(clf).set_params(prompts={0: "tench", 3: "cardigan", 5: "black grouse"})
    images = torch.rand(2, 3, 16, 16)
    expected = clf.predict_proba(images)
    assert by_name.fit(None, [5, 0, 3]).predict_proba(images) == pytest.approx(expected, rel=1e-6)


def test_class_names_survive_saving_a_loaded_pipeline(dit, tmp_path):
    dit.pipeline.save_pretrained(tmp_path)
    names = json.loads((tmp_path / "model_index.json").read_text())["id2label"]
    assert names["2"] == "Cardigan, Cardigan Welsh corgi"


def test_dit_takes_square_images_only(dit):
    with pytest.raises(ValueError, match=r"16 x 32 pixels.*square"):
        dit.encode_images(torch.zeros(1, 3, 16, 32))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_class_embeds": None}, "num_class_embeds=None.*cannot tell classes apart"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"channels": 4}, "takes 4 channels"),
    ],
    ids=["unconditional", "timestep", "channels"],
)
def test_unets_that_do_not_read_the_class_of_a_picture_are_refused(config, message):
    pipeline = diffusers.DDPMPipeline(class_unet(**config), diffusers.DDPMScheduler())
    with pytest.raises(ValueError, match=message):
        DiffusersBackend(pipeline)


def test_classes_known_by_number_only_are_refused_by_name():
    backend = DiffusersBackend(other_pipelines.tiny_ddpm())
    assert class_labels(backend, "3", "0") == [3, 0]
    for label in ("cat", "4", ""):
        with pytest.raises(
            ValueError, match=f"'{label}' is not a class.*by number only.*from 0 to 3"
        ):
            class_labels(backend, label)


def test_a_network_of_one_channel_sees_pictures_in_grey_as_pillow_does():
    pipeline = diffusers.DDPMPipeline(class_unet(channels=1), diffusers.DDPMScheduler())
    backend = DiffusersBackend(pipeline)
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]) / 127.5 - 1
    latents = backend.encode_images(colours.view(4, 3, 1, 1).expand(4, 3, 16, 16))
    assert latents.shape == (4, 1, 16, 16)
    expected = torch.tensor([76, 150, 29, 90]) / 127.5 - 1
    torch.testing.assert_close(latents[:, 0, 0, 0], expected, rtol=0, atol=0.5 / 127.5)


@pytest.mark.parametrize(
    ("build", "sides", "factor"),
    [
        (other_pipelines.tiny_ddpm, (15, 16), 2),
        (other_pipelines.tiny_flux, (16, 18), 4),
        (other_pipelines.tiny_sd3, (18, 16), 4),
        (other_pipelines.tiny_pixart_sigma, (18, 16), 4),
        (other_pipelines.tiny_sana, (17, 16), 2),
        (tier_two_flows.tiny_bria, (18, 16), 4),
        (tier_two_flows.tiny_bria_fibo, (16, 24), 16),
        (tier_two_flows.tiny_qwen_image_21, (32, 48), 32),
    ],
)
def test_images_that_do_not_fill_whole_patches_are_refused(build, sides, factor):
    with pytest.raises(ValueError, match=f"{sides[0]} x {sides[1]} pixels.*divisible by {factor}"):
        DiffusersBackend(build()).encode_images(torch.zeros(1, 3, *sides))


def test_transformers_that_want_a_second_image_are_refused():
    pipeline = other_pipelines.tiny_flux()
    pipeline.transformer = flux_transformer(guidance_embeds=True, out_channels=16)
    pipeline.transformer.register_to_config(in_channels=32)  # as Flux Fill, Depth and Canny
    with pytest.raises(ValueError, match="takes 8 channels and the autoencoder gives 4"):
        DiffusersBackend(pipeline)
    pipeline = other_pipelines.tiny_if()
    pipeline.unet.register_to_config(in_channels=6)
    with pytest.raises(ValueError, match="use stage I"):
        DiffusersBackend(pipeline)


def test_flux_is_told_a_guidance_that_changes_nothing():
    for build, expected in ((other_pipelines.tiny_flux, 1.0), (CASES["flux_schnell"].build, None)):
        backend = DiffusersBackend(build())
        condition = backend.encode_classes(PROMPTS[:2], PROMPTS[:2])
        with watched(backend.pipeline.transformer) as calls:
            backend.forward(torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), condition)
        given = calls[0].given
        if expected is None:
            assert "guidance" not in given
        else:
            assert given["guidance"].tolist() == [expected] * 2
        torch.testing.assert_close(given["timestep"], torch.tensor([0.0105, 0.9005]))


def test_stable_diffusion_3_may_lack_its_t5(tmp_path):
    whole = DiffusersBackend(other_pipelines.tiny_sd3())
    pipeline = other_pipelines.tiny_sd3(text_encoder_3=None, tokenizer_3=None)
    folder = saved(pipeline, tmp_path)
    left_out: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
    spare = saved(other_pipelines.tiny_sd3(), tmp_path / "whole")
    for backend in (
        DiffusersBackend(pipeline),
        load_backend(folder),
        DiffusersBackend.from_pretrained(folder, free_text_encoder=True),
        DiffusersBackend.from_pretrained(spare, **left_out),
    ):
        states = backend.encode_classes(PROMPTS, PROMPTS)["encoder_hidden_states"]
        expected = whole.encode_classes(PROMPTS, PROMPTS)["encoder_hidden_states"].clone()
        expected[:, pipelines.MAX_TOKENS :] = 0
        torch.testing.assert_close(states, expected)


def qwen_image_that_drops_its_template():
    """As the real one, whose template has as many tokens as are dropped; letters are more."""
    pipeline = tier_two_pipelines.tiny_qwen_image()
    template = pipeline.prompt_template_encode.split("{}")[0]
    pipeline.prompt_template_encode_start_idx = len(pipeline.tokenizer(template).input_ids)
    return pipeline


def ovis_image_that_drops_its_template():
    pipeline = tier_two_flows.tiny_ovis_image()
    template = pipeline._get_messages([""])[0].split("\n")[0]
    pipeline.user_prompt_begin_id = len(pipeline.tokenizer(template).input_ids)
    return pipeline


READERS = {  # the tokenizer of the encoder that reads longest, and the tokens it has for a prompt
    "sdxl": (pipelines.tiny_sdxl, "tokenizer", pipelines.MAX_TOKENS - 2),
    "sd3": (other_pipelines.tiny_sd3, "tokenizer_3", 255),
    "sd3_without_t5": (
        lambda: other_pipelines.tiny_sd3(text_encoder_3=None),
        "tokenizer",
        pipelines.MAX_TOKENS - 2,
    ),
    "flux": (other_pipelines.tiny_flux, "tokenizer_2", 511),
    "pixart_alpha": (other_pipelines.tiny_pixart_alpha, "tokenizer", 119),
    "pixart_sigma": (other_pipelines.tiny_pixart_sigma, "tokenizer", 299),
    "sana": (other_pipelines.tiny_sana, "tokenizer", 300),
    "deepfloyd": (other_pipelines.tiny_if, "tokenizer", 76),
    "aura_flow": (tier_two_pipelines.tiny_aura_flow, "tokenizer", 255),
    "hunyuan": (tier_two_pipelines.tiny_hunyuan, "tokenizer_2", 255),
    "lumina": (tier_two_pipelines.tiny_lumina, "tokenizer", 93),  # the system prompt takes the rest
    "qwen_image": (qwen_image_that_drops_its_template, "tokenizer", 512),
    "bria": (tier_two_flows.tiny_bria, "tokenizer", 127),
    "ovis_image": (ovis_image_that_drops_its_template, "tokenizer", 256),
}


@pytest.mark.parametrize(("build", "reader", "room"), READERS.values(), ids=READERS)
def test_prompts_are_warned_of_when_their_last_word_is_not_read(build, reader, room):
    backend = DiffusersBackend(build())
    # T5 spends a token on where a word begins
    mark = len(getattr(backend.pipeline, reader)("a", add_special_tokens=False).input_ids) - 1

    def states(length, last):
        prompt = "a" * (length - mark - 1) + last
        return list(backend.encode_classes([0], [prompt]).tensors.values())

    def same(one, other):
        return all(map(torch.equal, one, other))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not same(states(room, "a"), states(room, "b"))
    with pytest.warns(UserWarning, match=f"has {room + 1} tokens.*first {room}"):
        assert same(states(room + 1, "a"), states(room + 1, "b"))


def test_a_mask_that_hides_nothing_equals_no_mask():
    backend = DiffusersBackend(tier_two_pipelines.tiny_qwen_image())
    condition = backend.encode_classes([0], ["a cat"])
    assert condition["encoder_hidden_states_mask"].all()
    assert backend.pipeline.encode_prompt(["a cat"])[1] is None
    z, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    output = backend.forward(z, t, condition)
    del condition.tensors["encoder_hidden_states_mask"]
    torch.testing.assert_close(backend.forward(z, t, condition), output, rtol=1e-5, atol=1e-5)


def test_schedulers_of_networks_trained_otherwise_are_refused_without_bad_advice():
    pipeline = pipelines.tiny_sdxl()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match=r"FlowMatchEuler.*FunctionBackend") as error:
        DiffusersBackend(pipeline)
    assert "DDIM" not in str(error.value)


def test_bria_models_that_no_flow_was_trained_for_are_refused():
    pipeline = tier_two_flows.tiny_bria()
    pipeline.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(ValueError, match=r"DDIMScheduler.*'epsilon'.*FlowMatchEuler"):
        DiffusersBackend(pipeline)


def test_the_empty_prompt_of_fibo_is_one_token_whatever_is_encoded_beside_it():
    pipeline = tier_two_flows.tiny_bria_fibo()
    pipeline.text_encoder.resize_token_embeddings(128_001)  # the last is the empty prompt's
    backend = DiffusersBackend(pipeline)
    beside, alone = (
        backend.encode_classes(PROMPTS[:1], ["a cat"]),
        backend.encode_classes([0], [""]),
    )
    both = backend.encode_classes([0, 1], ["", "a cat"])
    assert both["n_tokens"].tolist() == [1, 5]
    assert torch.equal(both["states"][0, :1], alone["states"][0])
    assert torch.equal(both["states"][1], beside["states"][0])


TURBO = {  # as their checkpoints have it
    "sd_turbo": (pipelines.tiny_sd, diffusers.EulerDiscreteScheduler),
    "sdxl_turbo": (pipelines.tiny_sdxl, diffusers.EulerAncestralDiscreteScheduler),
    "sdxl_lcm": (pipelines.tiny_sdxl, diffusers.LCMScheduler),
}


@pytest.mark.parametrize("name", TURBO)
def test_checkpoints_distilled_for_few_steps_are_read_as_their_family(name, tmp_path):
    build, scheduler = TURBO[name]
    plain = DiffusersBackend(build())
    pipeline = build()
    options = {} if name == "sdxl_lcm" else {"timestep_spacing": "trailing"}
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    distilled = load_backend(saved(pipeline, tmp_path))
    torch.testing.assert_close(distilled.schedule.alpha, plain.schedule.alpha, rtol=1e-6, atol=0)
    assert distilled.prediction_type == plain.prediction_type == "epsilon"
    outputs = map(pipelines.sample_output, (distilled, plain))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_a_folder_of_an_unknown_family_lists_those_known(tmp_path):
    folder = Path(saved(other_pipelines.tiny_ddpm(), tmp_path))
    edit_index(folder, _class_name="NewerPipeline")
    with pytest.raises(ValueError, match=r"NewerPipeline.*FluxPipeline.*FunctionB"):
        load_backend(folder)


def test_a_network_distilled_to_mean_velocities_is_refused():
    pipeline = tier_two_flows.tiny_hunyuan_image()
    pipeline.transformer.register_to_config(use_meanflow=True)
    with pytest.raises(ValueError, match=r"mean velocity.*use HunyuanImage 2\.1 itself"):
        DiffusersBackend(pipeline)
