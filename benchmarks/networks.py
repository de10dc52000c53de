"""Denoisers and autoencoders of published models, with random weights.

``width`` divides the channels, layers and latents, so that the same code runs on a CPU in seconds;
1 is the published size. Latents and conditions are those of the models' own resolutions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from transformers import CLIPTokenizer

from diffusion_classifier.backends import Conditioning, DiffusersBackend

LEVELS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}


def groups(width):
    """Return the number of groups of GroupNorm, which must divide the channels."""
    return 32 if width == 1 else 8


def sd15_unet(width=1):
    return diffusers.UNet2DConditionModel(
        sample_size=64 // width,
        block_out_channels=tuple(c // width for c in (320, 640, 1280, 1280)),
        attention_head_dim=8,
        cross_attention_dim=768 // width,
        norm_num_groups=groups(width),
    )


def sdxl_unet(width=1):
    return diffusers.UNet2DConditionModel(
        sample_size=128 // width,
        block_out_channels=tuple(c // width for c in (320, 640, 1280)),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, max(1, 10 // width)),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048 // width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1280 // width + 6 * 256,
        norm_num_groups=groups(width),
    )


def sd3_transformer(width=1, n_layers=24, **options):
    heads = n_layers // width
    return diffusers.SD3Transformer2DModel(
        sample_size=128 // width,
        num_layers=heads,
        num_attention_heads=heads,
        attention_head_dim=64,
        caption_projection_dim=64 * heads,
        joint_attention_dim=4096 // width,
        pooled_projection_dim=2048 // width,
        pos_embed_max_size=192,
        **options,
    )


def flux_transformer(width=1):
    return diffusers.FluxTransformer2DModel(
        num_layers=19 // width,
        num_single_layers=38 // width,
        num_attention_heads=24 // width,
        joint_attention_dim=4096 // width,
        pooled_projection_dim=768 // width,
        guidance_embeds=True,
    )


def autoencoder(channels, width=1, **options):
    """Build the autoencoder of Stable Diffusion and later models."""
    return diffusers.AutoencoderKL(
        block_out_channels=tuple(c // width for c in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        norm_num_groups=groups(width),
        **options,
    )


def without_quantisation(width=1):
    return autoencoder(16, width, use_quant_conv=False, use_post_quant_conv=False)


@dataclass(frozen=True)
class Model:
    """A model whose denoiser has its published size: how to build it, and what one row is.

    ``condition`` holds the shapes of one prompt's tensors, which shrink with ``width`` too.
    """

    pipeline: str
    denoiser: Callable[[int], Any]
    autoencoder: Callable[[int], Any]
    latent: tuple[int, int, int]
    condition: dict[str, tuple[int, ...]]

    def latent_shape(self, width):
        channels, *sides = self.latent
        return (channels, *(side // width for side in sides))

    def condition_shapes(self, width):
        return {name: tuple(n // width for n in s) for name, s in self.condition.items()}


MODELS = {
    "SD1.5": Model(
        "StableDiffusionPipeline",
        sd15_unet,
        lambda width: autoencoder(4, width),
        (4, 64, 64),
        {"encoder_hidden_states": (77, 768)},
    ),
    "SDXL": Model(
        "StableDiffusionXLPipeline",
        sdxl_unet,
        lambda width: autoencoder(4, width),
        (4, 128, 128),
        {"encoder_hidden_states": (77, 2048), "text_embeds": (1280,)},
    ),
    "SD3 medium": Model(
        "StableDiffusion3Pipeline",
        sd3_transformer,
        without_quantisation,
        (16, 128, 128),
        {"encoder_hidden_states": (77 + 256, 4096), "pooled_projections": (2048,)},
    ),
    "Flux dev": Model(
        "FluxPipeline",
        flux_transformer,
        without_quantisation,
        (16, 128, 128),
        {"encoder_hidden_states": (512, 4096), "pooled_projections": (768,)},
    ),
}


class RandomPrompts(DiffusersBackend):
    """A pipeline without text encoders, whose prompts are random embeddings."""

    def __init__(self, pipeline, shapes):
        super().__init__(pipeline, free_text_encoder=True)
        self.shapes = shapes

    def encode_classes(self, labels, prompts):
        generator = torch.Generator().manual_seed(len(prompts))
        return Conditioning(
            **{
                name: torch.randn(len(prompts), *shape, generator=generator).to(
                    self.device, self.dtype
                )
                for name, shape in self.shapes.items()
            }
        )

    def get_params(self, deep=True):
        return {"pipeline": self._pipeline if deep else None, "shapes": self.shapes}


@torch.inference_mode(False)
def make_backend(model, device, dtype, width=1):
    """Build a pipeline with random weights on a device, without text encoders."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            denoiser, vae = model.denoiser(width), model.autoencoder(width)
    finally:
        torch.set_default_dtype(before)
    for network in (denoiser, vae):
        network.eval().requires_grad_(False)
    tokens = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    tokenizer = CLIPTokenizer(vocab=tokens, merges=[], model_max_length=77)
    flow = "transformer" in type(denoiser).__name__.lower()
    scheduler = (
        diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDIMScheduler(**LEVELS)
    )
    kind = getattr(diffusers, model.pipeline)
    signature = inspect.signature(kind.__init__).parameters
    parts = dict.fromkeys(n for n, p in signature.items() if p.default is p.empty and n != "self")
    parts |= {name: tokenizer for name in parts if name.startswith("tokenizer")}
    parts |= {"transformer" if flow else "unet": denoiser, "vae": vae, "scheduler": scheduler}
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    return RandomPrompts(kind(**parts), model.condition_shapes(width))
