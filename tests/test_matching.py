"""Scores of images against captions: a plain loop, orders and duplicates, no text at all."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import (
    DiffusersBackend,
    FunctionBackend,
    GaussianBackend,
    load_embedded,
)
from diffusion_classifier.backends.families.parts.text import encode_text
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.matching import match_scores
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import FixedDraws
from tests.support import other_pipelines, pipelines
from tests.support.family_cases import CASES

# neither sorted nor all different
CAPTIONS = ("a red seven", "a digit", "a blue seven on a red background", "a red seven")
TIMESTEPS = [100, 400, 900]
OPTIONS = {"sampler": FixedDraws(TIMESTEPS), "max_draws": 3, "random_state": 0}


@pytest.fixture(scope="module")
def images():
    return load_scenes("test", n_samples=3).images


@torch.inference_mode()
def loop_scores(images, captions, weights):
    """Minus the mean weighted error of each pair, one evaluation at a time."""
    backend, seed = load_embedded(), int(np.random.RandomState(0).randint(2**31 - 1))
    (draws,) = FixedDraws(TIMESTEPS).rounds(backend.schedule, seed)
    x = backend.encode_images(torch.as_tensor(images).permute(0, 3, 1, 2) / 127.5 - 1)
    noise = draws.noise(x.shape[1:])
    scores = np.zeros((len(images), len(captions)))
    for p, caption in enumerate(captions):
        condition = backend.encode_classes([0], [caption])
        for i in range(len(images)):
            for t, eps in zip(TIMESTEPS, noise, strict=True):
                alpha, sigma = (level.item() for level in backend.schedule.at(torch.tensor(t)))
                z = alpha * x[i] + sigma * eps
                output = backend.forward(z[None], torch.tensor([t]), condition)[0]
                scores[i, p] -= weights[t] * (output - eps).square().sum().item() / len(TIMESTEPS)
    return scores


def test_scores_are_those_of_a_plain_loop(images):
    expected = loop_scores(images, CAPTIONS, np.ones(1000))
    scores = match_scores(images, CAPTIONS, **OPTIONS)
    assert scores.shape == (3, 4) and scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert np.array_equal(scores[:, 0], scores[:, 3])


def test_normalised_scores_are_relative_to_no_text_at_all(images):
    sigma = load_embedded().schedule.sigma.numpy()
    alpha2 = 1 - sigma**2
    weights = np.exp(-7 * np.arange(1000) / 1000) * sigma**2 / alpha2
    plain = loop_scores(images, (*CAPTIONS, ""), weights)
    scores = match_scores(
        images, CAPTIONS, normalize="unconditional", weighting="exponential", **OPTIONS
    )
    np.testing.assert_allclose(scores, plain[:, :4] - plain[:, 4:], rtol=1e-3, atol=1e-4)
    empty = match_scores(images, ["", "a digit"], normalize="unconditional", **OPTIONS)
    assert np.array_equal(empty[:, 0], np.zeros(3)) and (empty[:, 1] != 0).all()


def test_scores_rank_captions_as_the_classifier_does(images):
    captions = list(dict.fromkeys(CAPTIONS))
    clf = DiffusionClassifier(
        prompts="{}", pruner=NoPruning(3), sampler=OPTIONS["sampler"], random_state=0
    ).fit(None, captions)
    table = clf.errors(images, full=True)
    scores = match_scores(images, captions, **OPTIONS)
    order = np.argsort(captions)
    np.testing.assert_allclose(scores[:, order], -table.errors.mean(2), rtol=1e-6)
    assert (np.array(captions)[scores.argmax(1)] == clf.predict(table)).all()


def test_one_caption_ranks_images_and_latents_will_do(images):
    backend = load_embedded()
    two = match_scores(images, CAPTIONS[:2], backend, **OPTIONS)
    latents = DiffusionClassifier(backend).encode(images)
    one = match_scores(latents, CAPTIONS[:1], backend, **OPTIONS)
    np.testing.assert_allclose(one, two[:, :1], rtol=1e-5)
    assert one.shape == (3, 1)


def test_nats_of_an_exact_predictor():
    """With likelihood weights, differences of scores are those of log densities."""
    backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    backend.fit([[-1.0], [1.0]], ["a", "b"])
    x = np.array([[-2.0], [0.5]])
    scores = match_scores(
        x, ["b", "a"], backend, weighting="likelihood", max_draws=2000, random_state=0
    )
    # log N(x | 1, 1) - log N(x | -1, 1) = 2 x
    np.testing.assert_allclose(scores[:, 0] - scores[:, 1], 2 * x[:, 0], atol=0.1)


@pytest.mark.parametrize(
    ("captions", "error", "message"),
    [
        ("a red seven", TypeError, "is one string"),
        ([], ValueError, "captions is empty"),
        (["a", 3], TypeError, r"captions\[1\] is of type int"),
        (["a", "  "], ValueError, "blank"),
        ((text for text in "ab"), TypeError, "captions is of type generator; give a list"),
    ],
)
def test_bad_captions_are_named(images, captions, error, message):
    with pytest.raises(error, match=message):
        match_scores(images, captions)


def test_bad_options_are_named(images):
    with pytest.raises(ValueError, match=r"normalize='mean'.*'unconditional'"):
        match_scores(images, CAPTIONS, normalize="mean")
    with pytest.raises(TypeError, match=r"no option 'prompts', only sampler, .*verbose"):
        match_scores(images, CAPTIONS, prompts="a {}")


def test_models_without_an_unconditional_input_are_not_normalised():
    network = FunctionBackend(lambda z, t, k: z, schedule=torch.linspace(0.99, 0.01, 10))
    pixels = DiffusersBackend(other_pipelines.tiny_ddpm())
    for backend, names in ((network, ["cat", "dog"]), (network, ["", "a"]), (pixels, ["0", "1"])):
        with pytest.raises(ValueError, match="no unconditional input: leave out normalize"):
            match_scores(np.zeros((1, 16, 16, 3)), names, backend, normalize="unconditional")
        with pytest.raises(ValueError, match="two different captions"):
            match_scores(np.zeros((1, 16, 16, 3)), names[:1], backend)


def test_the_class_of_no_class_normalises_dit():
    backend = DiffusersBackend(other_pipelines.tiny_dit())
    images = np.random.default_rng(0).random((2, 16, 16, 3))
    names = ["tench", "black grouse", "3"]
    options = {"max_draws": 2, "random_state": 0}
    plain = match_scores(images, [*names, ""], backend, **options)
    scores = match_scores(images, names, backend, normalize="unconditional", **options)
    np.testing.assert_allclose(scores, plain[:, :3] - plain[:, 3:], rtol=1e-3, atol=1e-3)


def test_a_model_may_have_an_unconditional_prompt_of_its_own(images):
    backend = load_embedded()
    backend.unconditional_prompt = "a digit"
    plain = match_scores(images, CAPTIONS, backend, **OPTIONS)
    scores = match_scores(images, CAPTIONS[::2], backend, normalize="unconditional", **OPTIONS)
    np.testing.assert_allclose(scores, plain[:, ::2] - plain[:, [1]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sd", {}),
        ("sdxl", {}),
        ("sd3", {"prompt_2": None, "prompt_3": None}),
        ("pixart_sigma", {}),
        ("sana", {"complex_human_instruction": None}),
        ("deepfloyd", {}),
        ("aura_flow", {}),
        ("lumina", {}),
        ("hunyuan", {}),
    ],
)
@torch.inference_mode()
def test_the_unconditional_prompt_is_what_the_pipelines_own_guidance_takes(name, options):
    backend = DiffusersBackend(CASES[name].build())
    prompts = ["a cat", backend.unconditional_prompt, "x"]
    condition = backend.encode_classes(prompts, prompts)
    states = condition["encoder_hidden_states"]
    returned = encode_text(backend.pipeline, ["a cat"], do_classifier_free_guidance=True, **options)
    own = [part for part in returned if part is not None and part.shape == states[:1].shape]
    assert len(own) == 2  # with the prompt and without
    torch.testing.assert_close(states[:1], own[0])
    torch.testing.assert_close(states[1:2], own[1])
    assert not torch.equal(states[1], states[2])
    if "encoder_attention_mask" in condition.tensors:
        masks = [part for part in returned if part.ndim == 2]
        assert torch.equal(condition["encoder_attention_mask"][:2], torch.cat(masks))


@pytest.mark.parametrize("zeros", [True, False])
def test_the_empty_prompt_of_sdxl_is_what_its_guidance_takes(zeros):
    pipeline = pipelines.tiny_sdxl()
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    condition = DiffusersBackend(pipeline).encode_classes([0, 1, 2], ["a cat", "", "x"])
    _, states, _, pooled = pipeline.encode_prompt("a cat", do_classifier_free_guidance=True)
    torch.testing.assert_close(condition["encoder_hidden_states"][1:2], states)
    torch.testing.assert_close(condition["text_embeds"][1:2], pooled)
    assert (states == 0).all() == zeros
    assert (condition["encoder_hidden_states"][[0, 2]] != 0).any((1, 2)).all()
