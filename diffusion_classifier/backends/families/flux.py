"""Relatives of Flux: Chroma, Ovis-Image, Bria and FLUX.2.

Chroma (https://huggingface.co/lodestones/Chroma1-HD) is Flux with a mask of the text's padding and
without a pooled embedding. Ovis-Image (https://github.com/AIDC-AI/Ovis-Image) reads prompts with a
language model; its tokens have positions. Bria (https://huggingface.co/briaai/BRIA-3.2) pads
prompts with zeros; its time is the noise level times the number of timesteps. FLUX.2
(https://bfl.ai/blog/flux-2) reads hidden states of three layers of a language model. Its
autoencoder normalises every channel of every 2 x 2 patch by the running mean and variance of a
batch normalisation, not by one scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...noise.prediction import PredictionTypeName
from ..base import Conditioning
from .base import SCHEDULER_TYPES, Family, flow_time
from .mmdit import PackedFlowFamily, UnmaskedFlowFamily, pack, unpack
from .parts.autoencoder import mode_of_film
from .parts.text import (
    encode_text,
    most_tokens,
    preface_tokens,
    ragged,
    text_tokenizer,
    warn_truncated,
)


class Chroma(PackedFlowFamily):
    """Chroma."""

    pipelines = ("ChromaPipeline", "ChromaImg2ImgPipeline")

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline))
        states, _, mask, *_ = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        dtype = pipeline.transformer.dtype
        return Conditioning(encoder_hidden_states=states.to(dtype), attention_mask=mask.to(dtype))

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        mask, (height, width) = condition["attention_mask"], z.shape[-2:]
        rows, columns = (torch.arange(side // 2, device=z.device) for side in (height, width))
        places = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns).to(mask.dtype)
        patches = mask.new_ones(len(z), len(places))
        return {
            "img_ids": places,
            "txt_ids": mask.new_zeros(mask.shape[1], 3),
            "attention_mask": torch.cat([mask, patches], dim=1),
        }


class OvisImage(PackedFlowFamily):
    """Ovis-Image."""

    pipelines = ("OvisImagePipeline",)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        spent = preface_tokens(pipeline.tokenizer, pipeline._get_messages(["{}"])[0])
        spent -= pipeline.user_prompt_begin_id
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline) - spent)
        states, *_ = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        return Conditioning(encoder_hidden_states=states.to(pipeline.transformer.dtype))

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        height, width = z.shape[-2:]
        like = {"device": z.device, "dtype": pipeline.transformer.dtype}
        tokens = torch.arange(condition["encoder_hidden_states"].shape[1], **like)
        return {
            "img_ids": pipeline._prepare_latent_image_ids(1, height // 2, width // 2, **like),
            "txt_ids": torch.stack([torch.zeros_like(tokens), tokens, tokens], dim=1),
        }


class Bria(PackedFlowFamily):
    """Bria 3.2."""

    pipelines = ("BriaPipeline",)
    always = ("vae",)

    def prediction_type(self, pipeline: Any) -> PredictionTypeName:
        kind = pipeline.scheduler.config.get("prediction_type")
        if kind in SCHEDULER_TYPES:  # the pipeline also samples from networks of older training
            raise InputValueError(
                f"the {type(pipeline.scheduler).__name__} says that the network was trained with "
                f"prediction_type={kind!r}, but only Bria models trained by flow matching are "
                "supported; if this one was, give it its own scheduler: pipeline.scheduler = "
                "diffusers.FlowMatchEulerDiscreteScheduler()."
            )
        return "flow"

    def downsampling(self, pipeline: Any) -> int:
        return pipeline.vae_scale_factor // 2  # which counts the patches, too

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline))
        states, *_ = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        return Conditioning(encoder_hidden_states=states)

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        states, (height, width) = condition["encoder_hidden_states"], z.shape[-2:]
        like = {"device": z.device, "dtype": states.dtype}
        return {
            "img_ids": pipeline._prepare_latent_image_ids(1, height // 2, width // 2, **like)[0],
            "txt_ids": states.new_zeros(states.shape[1], 3),
        }

    def time(self, pipeline: Any, t: Tensor) -> Tensor:
        return flow_time(t)


class BriaFibo(UnmaskedFlowFamily):
    """Bria FIBO, trained on long captions in JSON. It reads all layers of a language model."""

    pipelines = ("BriaFiboPipeline",)

    def patch_size(self, pipeline: Any) -> int:
        return pipeline.transformer.config.patch_size

    def posterior_mode(self, vae: Any, images: Tensor) -> Tensor:
        return mode_of_film(vae, images)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline))
        states = []
        for prompt in prompts:
            *_, layers, _ = encode_text(pipeline, [prompt], guidance_scale=1.0)
            states.append(torch.cat(layers[-self.n_blocks(pipeline) :]).transpose(0, 1))
        return ragged(states)

    def n_blocks(self, pipeline: Any) -> int:
        """Return the number of blocks of the network, each of which reads a layer."""
        config = pipeline.transformer.config
        return config.num_layers + config.num_single_layers

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        layers, (height, width) = condition["encoder_hidden_states"], z.shape[-2:]  # [R, n, L, D]
        like = {"device": z.device, "dtype": layers.dtype}
        each = list(layers.unbind(2))
        return {
            "encoder_hidden_states": torch.cat([each[-1], each[-2]], dim=-1),
            "text_encoder_layers": each + each[-1:] * (self.n_blocks(pipeline) - len(each)),
            "img_ids": pipeline._prepare_latent_image_ids(1, height, width, **like),
            "txt_ids": layers.new_zeros(layers.shape[1], 3),
        }

    def time(self, pipeline: Any, t: Tensor) -> Tensor:
        return flow_time(t)


class Flux2Klein(PackedFlowFamily):
    """FLUX.2 klein, distilled or not, which reads prompts with Qwen3."""

    pipelines: tuple[str, ...] = ("Flux2KleinPipeline", "Flux2KleinKVPipeline")

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        latents = super().encode_images(pipeline, images)
        height, width = latents.shape[-2:]
        norm, epsilon = pipeline.vae.bn, pipeline.vae.config.batch_norm_eps
        mean, variance = (
            part.to(latents.device, torch.float32) for part in (norm.running_mean, norm.running_var)
        )
        return unpack((pack(latents) - mean) / (variance + epsilon).sqrt(), height, width)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        spent = self.preface(pipeline)
        warn_truncated(self.tokenizer(pipeline), prompts, most_tokens(pipeline) - spent)
        states, _ = encode_text(pipeline, prompts)
        return Conditioning(encoder_hidden_states=states.to(pipeline.transformer.dtype))

    def tokenizer(self, pipeline: Any) -> Any:
        """Return the tokenizer of the language model."""
        return pipeline.tokenizer

    def preface(self, pipeline: Any) -> int:
        """Return how many tokens the language model's template takes."""
        message = [{"role": "user", "content": ""}]
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        text = pipeline.tokenizer.apply_chat_template(message, **options)
        return len(pipeline.tokenizer(text).input_ids)

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        states = condition["encoder_hidden_states"]
        return {  # the same for all rows
            "img_ids": pipeline._prepare_latent_ids(z[:1, :, ::2, ::2]).to(z.device),
            "txt_ids": pipeline._prepare_text_ids(states[:1]).to(z.device),
        }


class Flux2(Flux2Klein):
    """FLUX.2 dev, which was distilled to imitate guidance and reads prompts with Mistral."""

    pipelines = ("Flux2Pipeline",)
    other_classes: Mapping[str, tuple[str, ...]] = {
        **Family.other_classes,
        "tokenizer": ("PixtralProcessor",),
    }

    def preface(self, pipeline: Any) -> int:
        texts = {"system": pipeline.system_message, "user": ""}
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in texts.items()
        ]
        text = pipeline.tokenizer.apply_chat_template(messages, tokenize=False)
        return len(self.tokenizer(pipeline)(text).input_ids)

    def tokenizer(self, pipeline: Any) -> Any:
        return text_tokenizer(pipeline.tokenizer)
