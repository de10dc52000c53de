"""What bounds memory: text encoders that go once prompts are encoded, offload, VAE slicing."""

import pickle
import threading

import diffusers
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.families.parts import autoencoder
from diffusion_classifier.pruners import NoPruning
from tests.support import other_pipelines, pipelines, tier_two_pipelines
from tests.support.family_cases import CASES
from tests.support.pipelines import PROMPTS, saved

pytestmark = pytest.mark.usefixtures("empty_model_cache")

TEXT_CASES = {name: case for name, case in CASES.items() if case.text_encoders}


def encoders_of(backend, names):
    return [getattr(backend.pipeline, name) for name in names]


@pytest.mark.parametrize("case", TEXT_CASES.values(), ids=TEXT_CASES)
def test_text_encoders_are_loaded_to_encode_prompts_and_then_dropped(case, tmp_path):
    folder, names = saved(case.build(), tmp_path), case.text_encoders
    plain = DiffusersBackend.from_pretrained(folder)
    expected = plain.encode_classes(PROMPTS, PROMPTS)
    assert None not in encoders_of(plain, names)
    backend = DiffusersBackend.from_pretrained(folder, free_text_encoder=True)
    with torch.inference_mode():  # as in fit
        for _ in range(2):
            assert encoders_of(backend, names) == [None] * len(names)
            condition = backend.encode_classes(PROMPTS, PROMPTS)
            assert condition.tensors.keys() == expected.tensors.keys()
            for name, tensor in expected.tensors.items():
                assert torch.equal(condition[name], tensor)
    assert encoders_of(backend, names) == [None] * len(names)
    z, t = torch.randn(4, *case.latent), torch.tensor([0, 300, 600, 999])
    assert torch.equal(backend.forward(z, t, condition), plain.forward(z, t, expected))
    assert backend.identity() == plain.identity()


@pytest.mark.parametrize("case", TEXT_CASES.values(), ids=TEXT_CASES)
def test_a_pipeline_made_in_memory_loses_its_text_encoders_for_good(case):
    backend = DiffusersBackend(case.build(), free_text_encoder=True)
    encoders = encoders_of(backend, case.text_encoders)
    assert None not in encoders
    backend.encode_classes(PROMPTS, PROMPTS)
    assert encoders_of(backend, case.text_encoders) == [None] * len(encoders)
    with pytest.raises(ValueError, match=r"no text_encoder.*free_text_encoder=True.*from_pretrain"):
        clone(backend).encode_classes(PROMPTS, PROMPTS)
    for name, encoder in zip(case.text_encoders, encoders, strict=True):
        setattr(backend.pipeline, name, encoder)
    assert len(backend.encode_classes(PROMPTS, PROMPTS)) == 4


def test_text_encoders_go_even_if_encoding_fails(monkeypatch):
    backend = DiffusersBackend(pipelines.tiny_sd(), free_text_encoder=True)
    monkeypatch.setattr(backend.pipeline, "encode_prompt", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.encode_classes(PROMPTS, PROMPTS)
    assert backend.pipeline.text_encoder is None


def test_a_classifier_without_text_encoders_can_be_fitted_again(tmp_path):
    backend = DiffusersBackend.from_pretrained(
        saved(pipelines.tiny_sdxl(), tmp_path), free_text_encoder=True
    )
    clf = DiffusionClassifier(backend, pruner=NoPruning(max_draws=2), random_state=0)
    images = torch.rand(2, 3, 16, 16)
    first = clf.fit(None, PROMPTS).predict_proba(images)
    assert clf.backend_.pipeline.text_encoder is None
    assert (clf.fit(None, PROMPTS).predict_proba(images) == first).all()


def test_a_pickle_loads_no_text_encoders_until_prompts_are_to_be_encoded(tmp_path):
    backend = DiffusersBackend.from_pretrained(
        saved(pipelines.tiny_sd(), tmp_path), free_text_encoder=True
    )
    expected = backend.encode_classes(PROMPTS, PROMPTS)["encoder_hidden_states"]
    twin = pickle.loads(pickle.dumps(backend))
    assert twin.free_text_encoder and twin.pipeline.text_encoder is None
    assert torch.equal(twin.encode_classes(PROMPTS, PROMPTS)["encoder_hidden_states"], expected)
    assert twin.pipeline.text_encoder is None


@pytest.mark.parametrize("device", [None, "cuda:1"])
@pytest.mark.parametrize("kind", ["model", "sequential"])
def test_offload_is_left_to_diffusers(tmp_path, monkeypatch, kind, device):
    folder, calls = saved(pipelines.tiny_sd(), tmp_path), []
    pipeline_class = diffusers.StableDiffusionPipeline
    for name in ("model", "sequential"):
        monkeypatch.setattr(
            pipeline_class,
            f"enable_{name}_cpu_offload",
            lambda self, name=name, **options: calls.append((name, options)),
        )
    monkeypatch.setattr(pipeline_class, "to", lambda self, *args: calls.append(("to", args)))
    DiffusersBackend.from_pretrained(folder, offload=kind, device=device)
    assert calls == [(kind, {} if device is None else {"device": device})]


def test_an_unknown_kind_of_offload_is_refused_before_anything_is_loaded(tmp_path):
    folder = saved(pipelines.tiny_sd(), tmp_path)
    with pytest.raises(ValueError, match=r"offload='disk'.*'model', 'sequential'"):
        DiffusersBackend.from_pretrained(folder, offload="disk")


@pytest.mark.parametrize("build", [pipelines.tiny_sd, other_pipelines.tiny_sana])
@pytest.mark.parametrize("slicing", [True, False])
def test_large_images_are_encoded_one_by_one(monkeypatch, build, slicing):
    backend = DiffusersBackend(build())
    vae, seen = backend.pipeline.vae, []
    vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    expected = backend.encode_images(images)
    vae.use_slicing = slicing
    monkeypatch.setattr(autoencoder, "LARGE_IMAGE", 16 * 16)
    torch.testing.assert_close(backend.encode_images(images), expected, rtol=1e-5, atol=1e-5)
    assert seen == [3, 1, 1, 1] and vae.use_slicing is slicing


@pytest.mark.parametrize("build", [pipelines.tiny_sd, tier_two_pipelines.tiny_qwen_image])
def test_an_autoencoder_of_any_kind_runs_in_float32_if_it_asks_to(build):
    pipeline = build().to(torch.bfloat16)
    pipeline.vae.register_to_config(force_upcast=True)
    seen = []
    pipeline.vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    latents = DiffusersBackend(pipeline).encode_images(torch.rand(1, 3, 16, 16) * 2 - 1)
    assert seen == [torch.float32] and latents.dtype == torch.float32
    assert pipeline.vae.dtype == torch.bfloat16


@pytest.mark.parametrize("build", [pipelines.tiny_sd, tier_two_pipelines.tiny_qwen_image])
def test_threads_that_share_a_half_precision_autoencoder_take_turns(build):
    """One must not turn it back to half precision while another computes in float32."""
    pipeline = build().to(torch.bfloat16)
    pipeline.vae.register_to_config(force_upcast=True)
    backend = DiffusersBackend(pipeline)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    expected, results, overlapped = backend.encode_images(images), [], []
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def wait(module, args):
        if not first_is_in.is_set():
            first_is_in.set()
            overlapped.append(second_is_in.wait(0.3))
        else:
            second_is_in.set()
            first_is_out.wait(10)

    def encode(done):
        results.append(backend.encode_images(images))
        done.set()

    pipeline.vae.encoder.register_forward_pre_hook(wait)
    first = threading.Thread(target=encode, args=[first_is_out])
    first.start()
    assert first_is_in.wait(10)
    encode(threading.Event())
    first.join()
    assert len(results) == 2 and all(torch.equal(latents, expected) for latents in results)
    assert overlapped == [False]
