"""Latent diffusion with a UNet: Stable Diffusion 1.x, 2.x and XL, Kolors, and distilled models.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022
(arXiv 2112.10752). The UNet reads a noised latent, the timestep and the text encoder's hidden
states. Stable Diffusion 1.x predicts the noise; 2.x at 768 pixels predicts the velocity. SDXL
(Podell et al., arXiv 2307.01952) uses two text encoders and also reads the image's size and crop.
Kolors (https://huggingface.co/Kwai-Kolors/Kolors-diffusers) is SDXL whose prompts are read by one
language model, ChatGLM3, in English and Chinese.

Latent consistency models (Luo et al., arXiv 2310.04378) also read the guidance scale that they
imitate. We pass 1, no guidance, to get the plain conditional prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...utils.quiet import quiet
from ..base import Conditioning
from .base import TWO_ENCODERS, TWO_TOKENIZERS, Family, call_denoiser
from .parts.text import encode_text, most_tokens, warn_truncated

# Options of UNet2DConditionModel that add inputs to latent, timestep and text.
OTHER_CONDITIONS = (
    "class_embed_type",
    "num_class_embeds",
    "addition_embed_type",
    "encoder_hid_dim_type",
)


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x and models of the same structure, such as Turbo and LCM."""

    pipelines: tuple[str, ...] = (
        "StableDiffusionPipeline",
        "LatentConsistencyModelPipeline",
        "StableDiffusionImg2ImgPipeline",  # from here on, others of the same components
        "LatentConsistencyModelImg2ImgPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionPAGImg2ImgPipeline",
        "StableDiffusionSAGPipeline",
        "StableDiffusionPanoramaPipeline",
        "StableDiffusionParadigmsPipeline",
    )
    components: tuple[str, ...] = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    denoiser = "unet"
    # Taiyi, Stable Diffusion in Chinese, has a BERT
    other_classes: Mapping[str, tuple[str, ...]] = {
        **Family.other_classes,
        "text_encoder": ("BertModel",),
    }
    conditions: tuple[tuple[str, str], ...] = ()  # supported values of OTHER_CONDITIONS

    def check(self, pipeline: Any) -> None:
        super().check(pipeline)
        config = pipeline.unet.config
        wanted = {name: config[name] for name in OTHER_CONDITIONS if config.get(name) is not None}
        if wanted != dict(self.conditions):
            raise InputValueError(
                f"besides the prompt, the UNet reads {wanted or 'nothing'}, which is not "
                f"supported for {type(pipeline).__name__}: only "
                f"{dict(self.conditions) or 'the prompt'} is; unload adapters that add "
                "conditions, or wrap the network with a FunctionBackend."
            )
        encoders = [getattr(pipeline, name) for name in self.text_encoders]  # None: freed
        known = all(
            hasattr(getattr(encoder, "config", None), "hidden_size") for encoder in encoders
        )
        width = config.encoder_hid_dim or config.cross_attention_dim
        given = sum(encoder.config.hidden_size for encoder in encoders) if known else width
        if isinstance(width, int) and given != width:
            raise InputValueError(
                f"the UNet reads text of width {width}, but the text encoders give {given}: it "
                "belongs to another model (such as the refiner of SDXL); use the base model's."
            )

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        self.warn_truncated(pipeline, prompts)
        encoded = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        tensors = {**self.text_tensors(encoded), **guidance_tensors(pipeline, len(prompts))}
        like = {"device": pipeline._execution_device, "dtype": pipeline.unet.dtype}
        return Conditioning(**{name: tensor.to(**like) for name, tensor in tensors.items()})

    def warn_truncated(self, pipeline: Any, prompts: list[str]) -> None:
        """Warn of prompts that are too long for the text encoder."""
        with quiet():
            # As in encode_prompt: a textual inversion of several vectors counts as several tokens.
            expanded = pipeline.maybe_convert_prompt(prompts, pipeline.tokenizer)
            warn_truncated(pipeline.tokenizer, expanded)

    def text_tensors(self, encoded: tuple[Any, ...]) -> dict[str, Tensor]:
        """Select the UNet's arguments from the result of ``encode_prompt``."""
        return {"encoder_hidden_states": encoded[0]}


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL and models of the same structure, such as Turbo and LCM."""

    pipelines: tuple[str, ...] = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLPAGPipeline",
        "StableDiffusionXLPAGImg2ImgPipeline",
    )
    components: tuple[str, ...] = ("vae", *TWO_ENCODERS, *TWO_TOKENIZERS, "unet", "scheduler")
    text_encoders: tuple[str, ...] = TWO_ENCODERS
    other_classes = Family.other_classes
    conditions: tuple[tuple[str, str], ...] = (("addition_embed_type", "text_time"),)
    pooled_width = "projection_dim"  # of the last text encoder, in its configuration

    def check(self, pipeline: Any) -> None:
        super().check(pipeline)
        config, encoder = pipeline.unet.config, getattr(pipeline, self.text_encoders[-1])
        wanted = config.projection_class_embeddings_input_dim
        sizes = wanted - (0 if encoder is None else getattr(encoder.config, self.pooled_width))
        if encoder is not None and sizes != 6 * config.addition_time_embed_dim:
            raise InputValueError(
                f"besides the text, the UNet reads {sizes / config.addition_time_embed_dim:g} "
                "numbers of size and crop, not the 6 of the base model (the refiner of SDXL reads "
                "5, one of them a score of aesthetics); use the base model."
            )

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        condition = super().encode_prompts(pipeline, prompts)
        if pipeline.config.get("force_zeros_for_empty_prompt"):  # how training dropped the text
            empty = [row for row, prompt in enumerate(prompts) if not prompt]
            for name in ("encoder_hidden_states", "text_embeds"):
                condition.tensors[name][empty] = 0
        return condition

    def text_tensors(self, encoded: tuple[Any, ...]) -> dict[str, Tensor]:
        return {"encoder_hidden_states": encoded[0], "text_embeds": encoded[2]}

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        unet, factor = pipeline.unet, pipeline.vae_scale_factor
        size = [side * factor for side in z.shape[-2:]]
        # original size, top left corner of the crop, target size: an image that was not cropped
        time_ids = torch.tensor([*size, 0, 0, *size], device=z.device, dtype=unet.dtype)
        tensors = dict(condition.tensors)
        added = {
            "text_embeds": tensors.pop("text_embeds"),
            "time_ids": time_ids.expand(len(z), -1),
        }
        return call_denoiser(unet, z, t, tensors, added_cond_kwargs=added)


class Kolors(StableDiffusionXL):
    """Kolors, whose pipeline pads every prompt on the left to the same length."""

    pipelines = ("KolorsPipeline", "KolorsImg2ImgPipeline", "KolorsPAGPipeline")
    components = StableDiffusion.components
    text_encoders = ("text_encoder",)
    libraries = {"kolors": "diffusers.pipelines.kolors"}  # noqa: RUF012
    conditions = (*StableDiffusionXL.conditions, ("encoder_hid_dim_type", "text_proj"))
    pooled_width = "hidden_size"

    def warn_truncated(self, pipeline: Any, prompts: list[str]) -> None:
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline))


def guidance_tensors(pipeline: Any, n: int) -> dict[str, Tensor]:
    """Return the embedding of a guidance scale of 1 for UNets that read one, else nothing."""
    width = pipeline.unet.config.time_cond_proj_dim
    if width is None:
        return {}
    return {"timestep_cond": pipeline.get_guidance_scale_embedding(torch.zeros(n), width)}
