"""The model inside the package: what it is made of and what it was kept from."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend, load_embedded
from diffusion_classifier.backends.loading.origin import embedded_path
from diffusion_classifier.datasets import CAPTION_WORDS, COLOR_NAMES, DIGIT_NAMES, is_unseen_pair
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.scoring import FittedWeighting, LikelihoodWeighting
from diffusion_classifier.strategies import default_sampler
from tests.support.pipelines import tiny_sd

TRAIN = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "train_embedded.py"))


def test_it_is_small_and_an_ordinary_pipeline_folder():
    files = [path for path in embedded_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15e6
    names = {path.relative_to(embedded_path()).parts[0] for path in files}
    assert names >= {"model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"}
    weights = [path.name for path in files if path.suffix in (".safetensors", ".bin", ".pt")]
    assert sorted(weights) == [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors",
        "model.safetensors",
    ]


def test_its_tokenizer_knows_the_words_of_its_captions():
    tokenizer = load_embedded().pipeline.tokenizer
    for word in CAPTION_WORDS:
        assert len(tokenizer(word).input_ids) == 3, word  # start, the word, end
    assert len(tokenizer("a photo of a handwritten red seven on a blue background").input_ids) <= 16


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        (["cat", "red dog"], "'cat', 'dog'"),
        (["Digits", "a photo of a low red seven"], "'digits', 'low'"),
        (["7", "9"], "'7', '9'"),
        (list("bcdefghi"), "'b', 'c', 'd', 'e', 'f' and 3 more"),
    ],
)
def test_words_that_it_never_read_are_warned_of(labels, unknown):
    clf = DiffusionClassifier(random_state=0)
    with pytest.warns(UserWarning, match=f"does not know {unknown}: .*Name the classes") as caught:
        clf.fit(None, labels)
    assert len(caught) == 1


def test_words_that_it_knows_are_not_warned_of(recwarn):
    clf = DiffusionClassifier(prompts=["a {}", "A photo of the handwritten {}, on a background."])
    clf.fit(None, [f"{color} {digit}" for color in COLOR_NAMES for digit in DIGIT_NAMES])
    DiffusionClassifier(FunctionBackend(abs, schedule=NoiseSchedule.flow(9))).fit(None, [0, 1])
    DiffusionClassifier(DiffusersBackend(tiny_sd())).fit(None, ["cat", "dog"])
    assert not recwarn.list


def test_captions_have_no_other_words():
    rng = np.random.RandomState(0)
    words = {w for _ in range(500) for w in TRAIN["caption"](7, 0, 2, rng).split()}
    assert words <= set(CAPTION_WORDS)


def test_its_latents_have_unit_scale_and_decode_to_the_picture():
    from diffusion_classifier.datasets import load_scenes

    backend = load_embedded()
    images = load_scenes("test", n_samples=32).images
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2) / 127.5 - 1
    latents = backend.encode_images(pixels)
    assert latents.shape == (32, 4, 8, 8)
    assert 0.8 < latents.std().item() < 1.2
    decoded = backend.pipeline.vae.decode(latents / backend.pipeline.vae.config.scaling_factor)
    assert (decoded.sample - pixels).square().mean().item() < 0.02


def test_training_scenes_hold_no_pair_that_is_kept_out(monkeypatch):
    make_scenes = TRAIN["make_scenes"]
    monkeypatch.setitem(make_scenes.__globals__, "N_SCENES", 3000)
    images, digit, color, background = make_scenes(np.random.RandomState(0))
    assert images.shape == (3000, 32, 32, 3)
    named = color >= 0
    assert 0.1 < 1 - named.mean() < 0.3  # arbitrary colours, less those refused
    assert not is_unseen_pair(digit[named], color[named]).any()
    assert (color != background).all()


def test_captions_are_true_varied_and_partial():
    rng = np.random.RandomState(0)
    captions = [TRAIN["caption"](7, 0, 2, rng) for _ in range(500)]
    assert len(set(captions)) > 20
    assert {"", "a red seven on a blue background", "a seven"} <= set(captions)
    for text in captions:
        assert not {"green", "eight"} & set(text.split())


def test_its_sampler_proposes_the_timesteps_that_tell_its_classes_apart():
    clf = DiffusionClassifier().fit(None, DIGIT_NAMES)
    proposal = clf.backend_.default_proposal
    assert torch.equal(clf.sampler_.proposal, proposal.double())
    assert proposal.shape == (1000,)
    by_quarter = proposal.view(4, 250).mean(1)
    assert by_quarter[:2].min() > 2 * by_quarter[3]
    again = DiffusionClassifier(clf.backend_, sampler="stratified").fit(None, DIGIT_NAMES)
    assert not hasattr(again.sampler_, "proposal")


def test_the_timesteps_proposed_go_by_the_weights():
    clf = DiffusionClassifier(weighting="likelihood").fit(None, ["one", "two"])
    weights = LikelihoodWeighting().weights(clf.backend_.schedule, "epsilon")
    p = clf.backend_.default_proposal * weights
    density = next(clf.sampler_.rounds(clf.backend_.schedule, 0)).density
    timesteps = next(clf.sampler_.rounds(clf.backend_.schedule, 0)).timesteps
    assert torch.allclose(density, 0.8 * (p / p.mean())[timesteps] + 0.2)
    unlearned = default_sampler(clf.backend_, FittedWeighting())
    assert torch.equal(unlearned.proposal, clf.backend_.default_proposal)
