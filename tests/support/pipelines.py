"""Tiny pipelines with random weights, built offline: the structure of real ones, in kilobytes.

Each ``tiny_...`` returns a new pipeline, whose networks a test may cast or break. Prompts are read
letter by letter and matter to the output (``PROMPTS`` give clearly different noise predictions).
"""

from __future__ import annotations

import copy
import functools
import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusion_classifier.noise import PREDICTION_TYPES, noise_errors

MAX_TOKENS = 24
IMAGE_SIZE = (16, 16)
PROMPTS = ("a cat", "a dog", "two eels", "x")
LETTERS = string.ascii_lowercase + string.digits + ",.-'"
LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLASS_NAMES = {
    0: "tench, Tinca tinca",
    1: "crane",
    2: "Cardigan, Cardigan Welsh corgi",
    3: "cardigan",
    4: "crane",
    5: "black grouse",
}
# Weights through which a prompt reaches the output, and how much larger they are to be.
PROMPT_GAINS = {
    "attn2.to_v": 8.0,
    "attn2.to_out": 8.0,
    "context_embedder": 2.0,
    "text_embedder": 2.0,
    "class_embed": 2.0,
}


def clip_tokenizer(max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """A CLIP tokenizer that spells: one token per letter."""
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_tokens)


def clip_text_encoder(tokenizer: CLIPTokenizer, kind: Any = CLIPTextModel) -> Any:
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
    return kind(config)


def autoencoder(halvings: int = 1, **config) -> AutoencoderKL:
    """Halves the sides: 16 x 16 pixels to 8 x 8 latents of 4 channels."""
    blocks = halvings + 1
    return AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
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


def heed_prompts(network: torch.nn.Module, gains: Mapping[str, float]) -> None:
    """Make prompts matter to a random network as they do to a trained one."""
    for name, parameter in network.named_parameters():
        for part, gain in gains.items():
            if part in name:
                parameter.data *= gain


def built_once(build: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Copies of the components that ``build`` makes, always with the same weights."""

    @functools.lru_cache
    def components() -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            parts = build()
        for name, part in parts.items():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
                if name in ("unet", "transformer"):
                    heed_prompts(part, PROMPT_GAINS)
        return parts

    return functools.wraps(build)(lambda: copy.deepcopy(components()))


@built_once
def stable_diffusion() -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(),
        "text_encoder": clip_text_encoder(tokenizer),
        "unet": conditional_unet(),
    }


UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def tiny_sd(prediction_type: str = "epsilon", scheduler: Any = DDIMScheduler, **config) -> Any:
    """Stable Diffusion; ``config`` is the scheduler's. The weights are always the same."""
    diffusion = {"prediction_type": prediction_type, "clip_sample": False, "steps_offset": 1}
    return StableDiffusionPipeline(
        **stable_diffusion(),
        scheduler=scheduler.from_config({**LEVELS, **diffusion, **config}),
        **UNSAFE,
    )


@built_once
def latent_consistency() -> dict[str, Any]:
    unet = conditional_unet(time_cond_proj_dim=8)
    return {**stable_diffusion(), "unet": unet}


def tiny_lcm() -> Any:
    scheduler = diffusers.LCMScheduler(**LEVELS)
    return diffusers.LatentConsistencyModelPipeline(
        **latent_consistency(), scheduler=scheduler, **UNSAFE
    )


@built_once
def stable_diffusion_xl() -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "vae": autoencoder(),
        "text_encoder": clip_text_encoder(tokenizer),
        "text_encoder_2": clip_text_encoder(tokenizer, transformers.CLIPTextModelWithProjection),
        "unet": conditional_unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 8,
        ),
    }


def tiny_sdxl() -> Any:
    scheduler = diffusers.EulerDiscreteScheduler(**LEVELS)
    return diffusers.StableDiffusionXLPipeline(**stable_diffusion_xl(), scheduler=scheduler)


@built_once
def latent_consistency_xl() -> dict[str, Any]:
    parts = stable_diffusion_xl()
    levels = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.5, 1.0, 2.0]}
    return {
        **parts,
        "vae": autoencoder(**levels),
        "unet": conditional_unet(**{**parts["unet"].config, "time_cond_proj_dim": 8}),
    }


def tiny_sdxl_lcm() -> Any:
    """With an embedding of guidance, and latents that are normalised by channel."""
    scheduler = diffusers.LCMScheduler(**LEVELS)
    return diffusers.StableDiffusionXLPipeline(**latent_consistency_xl(), scheduler=scheduler)


def saved(pipeline, folder: str | Path, **options) -> str:
    """Save as safetensors in ``folder``, and return its path."""
    pipeline.save_pretrained(folder, safe_serialization=True, **options)
    if isinstance(pipeline, diffusers.DiTPipeline):  # as on the Hub; diffusers does not write it
        edit_index(folder, id2label=CLASS_NAMES)
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


def epsilon_errors(backend, images, prompts, timesteps):
    """Errors [image, prompt, draw], each row alone."""
    x, condition = backend.encode_images(images), backend.encode_classes(prompts, prompts)
    kind = PREDICTION_TYPES[backend.prediction_type]
    generator = torch.Generator().manual_seed(0)
    errors = torch.empty(len(x), len(prompts), len(timesteps))
    for j, t in enumerate(torch.tensor(timesteps)):
        eps = torch.randn(x[:1].shape, generator=generator)
        alpha, sigma = (level.float() for level in backend.schedule.at(t))
        for i in range(len(x)):
            z = alpha * x[i : i + 1] + sigma * eps
            target = kind.target(x[i : i + 1], eps, alpha, sigma)
            for p in range(len(prompts)):
                output = backend.forward(z, t[None], condition[p : p + 1])
                scale = kind.scale(alpha, sigma)[None]
                errors[i, p, j] = noise_errors(output, target, scale, "l2")
    return errors
