"""Shortlists by CLIP: equal to the model's own answer, loaded safely, saved and refused."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
)

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.errors import InputError, InputTypeError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.shortlist import ClipShortlist
from tests.support.pipelines import clip_text_encoder, clip_tokenizer

LABELS = ["a cat", "a dog", "an eel", "an owl"]
IMAGES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (20 + i, 30, 3), np.uint8))
    for i in range(6)
]
TEMPLATES = ["a photo of {}", "{}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP, as transformers saves it."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(40)
    text: CLIPTextConfig = clip_text_encoder(tokenizer, CLIPTextModel).config
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
    )
    path = tmp_path_factory.mktemp("clip") / "model"
    CLIPModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessor(
        **size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(path)
    return path


def classifier(folder, **options):
    def function(z, t, index):
        return z * (index[:, None, None, None] + 1) / 5

    backend = FunctionBackend(
        function, schedule=NoiseSchedule.flow(50), classes=LABELS, image_size=(16, 16)
    )
    options = {"k": 2, "prompts": TEMPLATES} | options
    return DiffusionClassifier(
        backend,
        shortlist=ClipShortlist(folder, **options),
        pruner=NoPruning(4),
        calibrator=None,
        random_state=0,
        verbose=0,
    )


def own_answer(folder, size=16):
    """Probabilities by transformers' own classes, for averaged texts."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), clip_tokenizer(40)
    processor = CLIPImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        texts = []
        for template in TEMPLATES:
            tokens = tokenizer(
                [template.format(label) for label in LABELS], padding=True, return_tensors="pt"
            )
            vectors = model.get_text_features(**tokens).pooler_output
            texts.append(vectors / vectors.norm(dim=1, keepdim=True))
        mean = torch.stack(texts).mean(0)
        mean = mean / mean.norm(dim=1, keepdim=True)
        pixels = processor(IMAGES, return_tensors="pt")["pixel_values"]
        vectors = model.get_image_features(pixel_values=pixels).pooler_output
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        return (model.logit_scale.exp() * vectors @ mean.T).softmax(1).numpy()


def test_it_proposes_what_the_model_itself_answers(folder):
    clf = classifier(folder).fit(None, LABELS)
    table = clf.errors(IMAGES)
    found, expected = np.exp(table.candidates.log_proba), own_answer(folder)
    assert np.ptp(expected, axis=0).max() > 0.01  # pictures differ
    np.testing.assert_allclose(found, expected, atol=2e-3)  # of resized pixels, rounded or not
    best = np.argsort(-found, 1)[:, :2]
    assert np.take_along_axis(clf.propose(IMAGES), best, 1).all()
    proba = clf.predict_proba(IMAGES)
    np.testing.assert_allclose(proba[~table.candidates.mask], found[~table.candidates.mask])


def test_saved_and_pickled_without_the_model(folder, tmp_path):
    clf = classifier(folder, prior_strength=1.0).fit(None, LABELS)
    expected = clf.predict_proba(IMAGES)
    clf.save(tmp_path / "clf")
    again = DiffusionClassifier.load(tmp_path / "clf", backend=clf.backend_)
    np.testing.assert_array_equal(again.predict_proba(IMAGES), expected)
    assert sum(file.stat().st_size for file in (tmp_path / "clf").iterdir()) < 30_000
    other = pickle.loads(pickle.dumps(clf.shortlist_))
    assert torch.equal(other.text_features_, clf.shortlist_.text_features_)
    assert len(pickle.dumps(clf.shortlist_)) < 5_000


def test_unreadable_pictures_are_skipped(folder):
    clf = classifier(folder).fit(None, LABELS)
    found = clf.predict([*IMAGES[:2], "missing.png", IMAGES[2]], on_error="skip")
    assert [image for image, _ in clf.skipped_] == [2]
    assert "does not exist" in clf.skipped_[0][1]
    assert found[[0, 1, 3]].tolist() == clf.predict(IMAGES[:3]).tolist()


def test_latents_have_no_pictures(folder):
    clf = classifier(folder).fit(None, LABELS)
    latents = clf.encode(IMAGES)
    with pytest.raises(InputTypeError, match="ClipShortlist reads pictures"):
        clf.predict(latents)
    expected = clf.predict(IMAGES, candidates=clf.propose(IMAGES)).tolist()
    assert clf.predict(latents, candidates=clf.propose(IMAGES)).tolist() == expected


def changed(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def edit(name, **changes):
    def change(copy):
        path = copy / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def other_weights(copy):
    model = CLIPModel.from_pretrained(copy)
    with torch.no_grad():
        model.visual_projection.weight.add_(1)
    model.save_pretrained(copy)


def pickled_weights(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")


def lacking_weights(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pickled_weights, "is not safetensors"),
        (lacking_weights, "lack 'visual_projection.weight'"),
        (lambda copy: (copy / "model.py").write_text("1 / 0"), "custom code"),
        (edit("config.json", auto_map={"AutoModel": "model.Clip"}), "not that of a CLIP model"),
        (edit("config.json", model_type="bert"), "not that of a CLIP model"),
        (edit("preprocessor_config.json", image_std=[0, 1, 1]), "image_std that is not positive"),
        (edit("preprocessor_config.json", image_mean="x"), "needs 3 numbers"),
        (lambda copy: (copy / "tokenizer.json").unlink(), "would know no words"),
    ],
)
def test_folders_that_are_no_safe_clip_are_refused(folder, tmp_path, change, message):
    path = changed(folder, tmp_path, change)
    with pytest.raises(InputError, match=message):
        classifier(path).fit(None, LABELS)


def test_a_model_that_has_changed_is_refused(folder, tmp_path):
    path = changed(folder, tmp_path, lambda copy: None)
    clf = classifier(path).fit(None, LABELS)
    other_weights(path)
    with pytest.raises(InputValueError, match="is not the CLIP model of fit"):
        clf.predict(IMAGES)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere/at/all", "no folder"), ("owner/model", "HF_HUB_OFFLINE|cannot be reached")],
)
def test_models_that_do_not_exist_are_named(name, message):
    with pytest.raises(InputError, match=message):
        classifier(name).fit(None, LABELS)
