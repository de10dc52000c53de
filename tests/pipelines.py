"""Tiny pipelines with random weights, built offline: the structure of real ones, in kilobytes.

Each builder returns a new pipeline, whose networks a test may cast or break. Prompts are read
letter by letter and matter to the output (``PROMPTS`` give clearly different noise predictions).
"""

from __future__ import annotations

import copy
import json
import string
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

MAX_TOKENS = 24
IMAGE_SIZE = (16, 16)
PROMPTS = ("a cat", "a dog", "two eels", "x")


def clip_tokenizer(max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """A CLIP tokenizer that spells: one token per letter."""
    letters = string.ascii_lowercase + string.digits + ",.-'"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_tokens)


def clip_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def autoencoder(**config) -> AutoencoderKL:
    """Halves the sides: 16 x 16 pixels to 8 x 8 latents of 4 channels."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        **{"scaling_factor": 0.5, **config},
    )


def conditional_unet(**config) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            **config,
        }
    )


def heed_prompts(network: torch.nn.Module, gain: float = 8.0) -> None:
    """Make cross-attention of a random network matter as it does in a trained one."""
    for name, parameter in network.named_parameters():
        if "attn2.to_v" in name or "attn2.to_out" in name:
            parameter.data *= gain


@lru_cache
def _stable_diffusion() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = clip_tokenizer()
        networks: dict[str, Any] = {
            "vae": autoencoder(),
            "text_encoder": clip_text_encoder(tokenizer),
            "unet": conditional_unet(),
        }
    heed_prompts(networks["unet"])
    for network in networks.values():
        network.eval().requires_grad_(False)
    return {"tokenizer": tokenizer, **networks}


def tiny_sd(prediction_type: str = "epsilon", scheduler: Any = DDIMScheduler, **config) -> Any:
    """Stable Diffusion; ``config`` is the scheduler's. The weights are always the same."""
    levels = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    diffusion = {"prediction_type": prediction_type, "clip_sample": False, "steps_offset": 1}
    return StableDiffusionPipeline(
        **copy.deepcopy(_stable_diffusion()),
        scheduler=scheduler.from_config({**levels, **diffusion, **config}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def saved(pipeline, folder: str | Path, **options) -> str:
    """Save as safetensors in ``folder``, and return its path."""
    pipeline.save_pretrained(folder, safe_serialization=True, **options)
    return str(folder)


def edit_index(folder: str | Path, **entries) -> None:
    """Overwrite entries of a saved pipeline's model_index.json."""
    path = Path(folder) / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def sample_output(backend) -> torch.Tensor:
    """The network's output for four fixed latents, timesteps and prompts."""
    condition = backend.encode_classes(PROMPTS, PROMPTS)
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return backend.forward(z, torch.tensor([0, 300, 600, 999]), condition)
