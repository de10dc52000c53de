"""Flow transformers with language models: Z-Image, CogView4, HiDream, HunyuanImage, Kandinsky 5.

Language models give as many states as a prompt has tokens. Z-Image's network (arXiv 2511.22699)
takes a list of such states and masks what it pads. CogView4's attends to all that it is given, so
its pipeline's answer for a prompt changes with the longest prompt beside it. We encode prompts
one by one, each padded to a multiple of 16 tokens only, and the network is called once for each
length among the rows.

HiDream (arXiv 2505.22705) reads the states of every layer of Llama, padded to one length, beside
those of T5 and two CLIPs.

HunyuanImage 2.1 (https://github.com/Tencent-Hunyuan/HunyuanImage-2.1) pads prompts to 1,000 tokens
and masks the padding. So we leave out what pads all prompts: the network's answers are the same.
ByT5 also reads what a prompt has in quotation marks.

Kandinsky 5 (arXiv 2511.14993) is a network of films, with channels last, and draws an image as a
film of one frame. It attends to the padding of prompts, as CogView4 does. Its latents are scaled,
but not shifted, whatever the configuration of its autoencoder says.

CogView4's time is not its noise level. With ``s = time / T`` and a shift ``m`` that grows with the
image, ``sigma = m / (m + 1 / s - 1)``; so ``s = sigma / (sigma + m (1 - sigma))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...utils.quiet import quiet
from ..base import Conditioning
from .base import TWO_ENCODERS, TWO_TOKENIZERS, FlowFamily, call_denoiser, flow_time
from .parts.text import (
    encode_text,
    most_tokens,
    preface_tokens,
    ragged,
    rows_of_each_length,
    text_tokenizer,
    warn_truncated,
    without_padding,
)


class ZImage(FlowFamily):
    """Z-Image. Its time 1 - t runs from noise to image, and it predicts ``x - eps``."""

    pipelines = ("ZImagePipeline", "ZImageImg2ImgPipeline")
    half_dtype = torch.bfloat16

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        return 1024, 1024  # a constant of __call__

    def patch_size(self, pipeline: Any) -> int:
        return pipeline.transformer.config.all_patch_size[0]

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        message = [{"role": "user", "content": ""}]
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
        preface = pipeline.tokenizer.apply_chat_template(message, **options)
        spent = len(pipeline.tokenizer(preface).input_ids)
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline) - spent)
        with quiet():
            states, _ = pipeline.encode_prompt(
                list(prompts),  # which it overwrites
                device=pipeline._execution_device,
                do_classifier_free_guidance=False,
            )
        return ragged([part.to(pipeline.transformer.dtype) for part in states])

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        transformer = pipeline.transformer
        states, lengths = condition["states"], condition["n_tokens"].tolist()
        films = transformer(
            list(z.to(transformer.dtype).unsqueeze(2)),  # of one frame
            1 - flow_time(t) / self.n_timesteps(pipeline),
            [part[:n] for part, n in zip(states, lengths, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack(list(films))[:, :, 0]


class CogView4(FlowFamily):
    """CogView4."""

    pipelines = ("CogView4Pipeline",)
    half_dtype = torch.bfloat16

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline))
        states = [
            encode_text(pipeline, [prompt], do_classifier_free_guidance=False)[0][0]
            for prompt in prompts
        ]
        return ragged([part.to(pipeline.transformer.dtype) for part in states])

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        transformer, output = pipeline.transformer, torch.empty_like(z, dtype=torch.float32)
        size = [side * pipeline.vae_scale_factor for side in z.shape[-2:]]
        like = {"device": z.device, "dtype": transformer.dtype}
        time = self.time(pipeline, z, t)
        for length, rows in rows_of_each_length(condition):
            shape = torch.tensor(size, **like).expand(len(rows), -1)
            output[rows] = call_denoiser(
                transformer,
                z[rows],
                time[rows],
                {"encoder_hidden_states": condition["states"][rows, :length]},
                original_size=shape,
                target_size=shape,
                crop_coords=torch.zeros_like(shape),
            ).float()
        return output

    def time(self, pipeline: Any, z: Tensor, t: Tensor) -> Tensor:
        """Return the time of the noise level ``(t + 1/2) / T``, before the shift."""
        from diffusers.pipelines.cogview4.pipeline_cogview4 import calculate_shift

        config, n = pipeline.scheduler.config, self.n_timesteps(pipeline)
        shift = config.get("shift", 1.0)
        if config.get("use_dynamic_shifting"):
            patches = z.shape[-2] * z.shape[-1] // self.patch_size(pipeline) ** 2
            names = ("base_image_seq_len", "base_shift", "max_shift")
            defaults = (256, 0.25, 0.75)
            values = [config.get(key, value) for key, value in zip(names, defaults, strict=True)]
            shift = calculate_shift(patches, *values)
            if config.get("time_shift_type", "exponential") == "exponential":
                shift = math.exp(shift)
        sigma = flow_time(t) / n
        return n * sigma / (sigma + shift * (1 - sigma))


class HiDream(FlowFamily):
    """HiDream-I1, which predicts ``x - eps``. A condition takes megabytes: 32 layers of Llama."""

    pipelines = ("HiDreamImagePipeline",)
    half_dtype = torch.bfloat16
    text_encoders = (*TWO_ENCODERS, "text_encoder_3", "text_encoder_4")
    components = (
        "vae",
        *text_encoders,
        *TWO_TOKENIZERS,
        "tokenizer_3",
        "tokenizer_4",
        "transformer",
        "scheduler",
    )

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        side = pipeline.default_sample_size * pipeline.vae_scale_factor
        return side, side

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer_4, prompts, most_tokens(pipeline))
        t5, _, llama, _, pooled, _ = encode_text(
            pipeline, prompts, do_classifier_free_guidance=False
        )
        dtype = pipeline.transformer.dtype
        return Conditioning(
            encoder_hidden_states_t5=t5.to(dtype),
            encoder_hidden_states_llama3=llama.to(dtype).transpose(0, 1),  # [P, layer, token, D]
            pooled_embeds=pooled.to(dtype),
        )

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        tensors = dict(condition.tensors)
        layers = tensors.pop("encoder_hidden_states_llama3").transpose(0, 1)
        return -pipeline.transformer(
            z.to(pipeline.transformer.dtype),
            timesteps=flow_time(t),
            encoder_hidden_states_llama3=layers,
            **tensors,
            return_dict=False,
        )[0]


class HunyuanImage(FlowFamily):
    """HunyuanImage 2.1. For the one distilled to imitate guidance we pass a scale of 1, none."""

    pipelines = ("HunyuanImagePipeline",)
    half_dtype = torch.bfloat16
    components = ("vae", *TWO_ENCODERS, *TWO_TOKENIZERS, "transformer", "scheduler")
    text_encoders = TWO_ENCODERS

    def check(self, pipeline: Any) -> None:
        super().check(pipeline)
        if pipeline.transformer.config.use_meanflow:
            raise InputValueError(
                "the transformer was distilled to predict the mean velocity of a step "
                "(use_meanflow), which is no expected noise; use HunyuanImage 2.1 itself."
            )

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        side = pipeline.default_sample_size * pipeline.vae_scale_factor
        return side, side

    def patch_size(self, pipeline: Any) -> int:
        return pipeline.transformer.config.patch_size[-1]

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        from diffusers.pipelines.hunyuan_image.pipeline_hunyuanimage import extract_glyph_text

        spent = preface_tokens(pipeline.tokenizer, pipeline.prompt_template_encode)
        spent -= pipeline.prompt_template_encode_start_idx
        warn_truncated(pipeline.tokenizer, prompts, pipeline.tokenizer_max_length - spent)
        most_quoted = pipeline.tokenizer_2_max_length
        warn_truncated(pipeline.tokenizer_2, prompts, most_quoted, quoted=extract_glyph_text)
        encoded = encode_text(pipeline, prompts, batch_size=len(prompts))
        states, mask = without_padding(*encoded[:2])
        quoted, quoted_mask = without_padding(*encoded[2:])
        dtype = pipeline.transformer.dtype
        return Conditioning(
            encoder_hidden_states=states.to(dtype),
            encoder_attention_mask=mask,
            encoder_hidden_states_2=quoted.to(dtype),
            encoder_attention_mask_2=quoted_mask,
        )

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        tensors, transformer = dict(condition.tensors), pipeline.transformer
        if transformer.config.guidance_embeds:
            tensors["guidance"] = torch.full_like(t, 1000, dtype=transformer.dtype)
        return call_denoiser(transformer, z, flow_time(t).to(transformer.dtype), tensors)


class Kandinsky5(FlowFamily):
    """Kandinsky 5 for images, which reads prompts with Qwen2.5-VL and CLIP."""

    pipelines = ("Kandinsky5T2IPipeline",)
    half_dtype = torch.bfloat16
    components = ("vae", *TWO_ENCODERS, *TWO_TOKENIZERS, "transformer", "scheduler")
    text_encoders = TWO_ENCODERS
    other_classes: Mapping[str, tuple[str, ...]] = {
        **FlowFamily.other_classes,
        "tokenizer": ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"),
    }

    def latent_channels(self, pipeline: Any) -> int:
        config = pipeline.transformer.config
        return config.in_visual_dim * (2 if config.visual_cond else 1) + config.visual_cond

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        side = signature(pipeline.__call__).parameters["height"].default
        return side, side

    def downsampling(self, pipeline: Any) -> int:
        return pipeline.vae_scale_factor_spatial

    def patch_size(self, pipeline: Any) -> int:
        return pipeline.transformer.config.patch_size[-1]

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        config = pipeline.vae.config
        shift = (config.get("shift_factor") or 0.0) * config.scaling_factor
        return super().encode_images(pipeline, images) + shift

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        tokenizer = text_tokenizer(pipeline.tokenizer)
        spent = preface_tokens(tokenizer, pipeline.prompt_template)
        spent -= pipeline.prompt_template_encode_start_idx
        warn_truncated(tokenizer, prompts, most_tokens(pipeline) - spent)
        encoded = [encode_text(pipeline, [prompt]) for prompt in prompts]
        dtype = pipeline.transformer.dtype
        return Conditioning(
            **ragged([states[0].to(dtype) for states, _, _ in encoded]).tensors,
            pooled_projections=torch.cat([pooled for _, pooled, _ in encoded]).to(dtype),
        )

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        transformer, output = pipeline.transformer, torch.empty_like(z, dtype=torch.float32)
        patch, time = self.patch_size(pipeline), flow_time(t).to(transformer.dtype)
        sides = [torch.arange(side // patch, device=z.device) for side in z.shape[-2:]]
        for length, rows in rows_of_each_length(condition):
            films = transformer(
                z[rows, :, None].movedim(1, -1).to(transformer.dtype),
                condition["states"][rows, :length],
                time[rows],
                condition["pooled_projections"][rows],
                [torch.arange(1, device=z.device), *sides],
                torch.arange(length, device=z.device),
                (1.0, 1.0, 1.0),
            ).sample
            output[rows] = films[:, 0].movedim(-1, 1).float()
        return output
