"""What users set on a pipeline with diffusers' and torch's own calls is honoured, not re-made."""

import pickle
import warnings

import diffusers
import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import IMAGE_SIZE, PROMPTS, epsilon_errors, saved, tiny_sd


@pytest.fixture
def images():
    return torch.rand(2, 3, *IMAGE_SIZE) * 2 - 1


def test_what_is_done_to_the_pipeline_is_honoured():
    pipeline = tiny_sd()
    backend = DiffusersBackend(pipeline)
    z, t, condition = torch.randn(4, 4, 8, 8), torch.full((4,), 500), backend.encode_classes
    before = backend.forward(z, t, condition(PROMPTS, PROMPTS))
    bias = torch.tensor([1.0, 2.0, 3.0, 4.0])
    pipeline.unet.conv_out.bias.data += bias
    after = backend.forward(z, t, condition(PROMPTS, PROMPTS))
    torch.testing.assert_close(after - before, bias.view(1, 4, 1, 1).expand_as(z))
    pipeline.to(torch.bfloat16)
    assert backend.dtype == torch.bfloat16
    assert backend.forward(z, t, condition(PROMPTS, PROMPTS)).dtype == torch.bfloat16
    assert backend.device == torch.device("cpu")


def test_quantised_networks_are_used_as_they_are(images):
    """torch's own quantisation of linear layers, 8 bits, set on the pipeline."""
    expected = epsilon_errors(DiffusersBackend(tiny_sd()), images, PROMPTS, [500])
    pipeline = tiny_sd()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has announced another module for it
        pipeline.unet = torch.ao.quantization.quantize_dynamic(pipeline.unet, {torch.nn.Linear})
    backend = DiffusersBackend(pipeline)
    quantised = backend.pipeline.unet.time_embedding.linear_1
    assert "quantized" in type(quantised).__module__ and backend.dtype == torch.float32
    errors = epsilon_errors(backend, images, PROMPTS, [500])
    assert not torch.equal(errors, expected)
    torch.testing.assert_close(errors, expected, rtol=0.05, atol=0)


def test_attention_set_on_the_pipeline_is_used(images):
    class Counting(diffusers.models.attention_processor.AttnProcessor):
        calls = 0

        def __call__(self, *args, **options):
            Counting.calls += 1
            return super().__call__(*args, **options)

    expected = epsilon_errors(DiffusersBackend(tiny_sd()), images, PROMPTS, [500])
    pipeline = tiny_sd()
    pipeline.unet.set_attn_processor(Counting())
    errors = epsilon_errors(DiffusersBackend(pipeline), images, PROMPTS, [500])
    assert Counting.calls > 0
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=0)


def test_a_scheduler_exchanged_to_sample_images_makes_it_no_other_model(images, tmp_path):
    backend = DiffusersBackend.from_pretrained(saved(tiny_sd(), tmp_path / "model"))
    identity = backend.identity()
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0).fit(None, ["cat", "x"])
    images = (images + 1) / 2
    expected, latents, table = clf.predict_proba(images), clf.encode(images), clf.errors(images)
    config = backend.pipeline.scheduler.config
    backend.pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    assert backend.identity() == identity
    for X in (images, latents, table):
        np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-5)
    clf.save(tmp_path / "fitted")
    for again in (
        pickle.loads(pickle.dumps(clf)),
        DiffusionClassifier.load(tmp_path / "fitted"),
    ):
        np.testing.assert_allclose(again.predict_proba(images), expected, rtol=1e-5)
