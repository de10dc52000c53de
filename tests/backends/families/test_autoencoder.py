"""Autoencoders that give latents without a posterior."""

import diffusers
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import saved, tiny_sd


@pytest.fixture
def tiny():
    """Stable Diffusion with a distilled autoencoder, as TAESD."""
    pipeline = tiny_sd()
    pipeline.register_modules(
        vae=diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            scaling_factor=0.7,
        ).eval()
    )
    return pipeline


@pytest.mark.usefixtures("empty_model_cache")
def test_a_tiny_autoencoder_gives_its_latents_scaled(tiny, tmp_path):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = tiny.vae.encode(images).latents * 0.7
    assert expected.shape == (2, 4, 8, 8) and expected.std() > 0
    torch.testing.assert_close(DiffusersBackend(tiny).encode_images(images), expected)
    loaded = load_backend(saved(tiny, tmp_path))
    torch.testing.assert_close(loaded.encode_images(images), expected)
    clf = DiffusionClassifier(loaded, pruner=NoPruning(2)).fit(None, ["a cat", "two eels"])
    assert clf.predict_proba(images / 2 + 0.5).sum(1) == pytest.approx([1, 1])
