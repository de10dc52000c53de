"""Latent diffusion with a UNet: Stable Diffusion 1.x and 2.x.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022
(arXiv 2112.10752). The UNet sees a noised latent, the timestep, and the text encoder's hidden
states; 1.x predicts the noise, 2.x at 768 pixels the velocity.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .base import Conditioning
from .family import Family, quiet, warn_truncated

# Options of UNet2DConditionModel that make it take more than latent, timestep and text.
OTHER_CONDITIONS = (
    "class_embed_type",
    "num_class_embeds",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x, and checkpoints of their form."""

    pipelines = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
    components = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")

    def check(self, pipeline: Any) -> None:
        config, latent_channels = pipeline.unet.config, pipeline.vae.config.latent_channels
        if config.in_channels != latent_channels:
            raise ValueError(
                f"the UNet takes {config.in_channels} channels and the autoencoder gives "
                f"{latent_channels}: it also wants a mask, a depth map or a second image "
                "(inpainting, depth or editing models); use the text-to-image model instead."
            )
        others = {name: config[name] for name in OTHER_CONDITIONS if config.get(name) is not None}
        if others:
            raise ValueError(
                f"the UNet needs conditions beside the prompt ({others}), which is not supported "
                "for Stable Diffusion 1.x and 2.x; unload adapters that add them, or wrap the "
                "network with a FunctionBackend."
            )

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        with quiet():
            # As encode_prompt does: a learned concept of several vectors is several tokens.
            expanded = pipeline.maybe_convert_prompt(prompts, pipeline.tokenizer)
            warn_truncated(pipeline.tokenizer, expanded)
            embeddings, _ = pipeline.encode_prompt(
                prompts,
                device=pipeline._execution_device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return Conditioning(encoder_hidden_states=embeddings.to(pipeline.unet.dtype))

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        unet = pipeline.unet
        return unet(z.to(unet.dtype), t, **condition.tensors, return_dict=False)[0]
