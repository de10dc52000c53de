"""Diffusion transformers with cross-attention to text or with class labels: DiT, PixArt, Sana, ...

DiT (Peebles and Xie, ICCV 2023, arXiv 2212.09748) is conditioned on ImageNet classes and reads no
text. PixArt-alpha and -sigma (arXiv 2310.00426, 2403.04692) attend to the hidden states of a T5
encoder. Sana (arXiv 2410.10629) attends to those of a small language model, and the sides of its
latents are 32 times smaller than the image's. DiT, PixArt and HunyuanDiT (arXiv 2405.08748) also
predict the reverse-step variance, which ``loss="vlb"`` uses. Lumina-Image 2.0: arXiv 2503.21758.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ..base import Conditioning
from .base import (
    TWO_ENCODERS,
    TWO_TOKENIZERS,
    ClassConditionalFamily,
    Family,
    FlowFamily,
    call_denoiser,
    flow_time,
)
from .parts.class_names import check_kept, names_of, saved_labels
from .parts.text import encode_text, most_tokens, warn_truncated

# the class of DiT's and PixArt's transformers in pipelines saved by older diffusers
OLDER_CLASS = {**Family.other_classes, "transformer": ("Transformer2DModel",)}


class DiT(ClassConditionalFamily):
    """DiT. A label is the name of a class, as in ``pipeline.labels``, or its index.

    The prompt ``""`` selects the null class, with which the network was trained for guidance.
    """

    pipelines = ("DiTPipeline",)
    components = ("vae", "transformer", "scheduler")
    other_classes = OLDER_CLASS
    unconditional_prompt: str | None = ""

    def downsampling(self, pipeline: Any) -> int:
        return 2 ** (len(pipeline.vae.config.block_out_channels) - 1)

    def check_sides(self, pipeline: Any, images: Tensor) -> None:
        super().check_sides(pipeline, images)
        if images.shape[-2] != images.shape[-1]:
            raise InputValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, but DiT takes only "
                "square ones; set image_size to one number."
            )

    def n_classes(self, pipeline: Any) -> int:
        return pipeline.transformer.config.num_embeds_ada_norm

    def class_names(self, pipeline: Any) -> dict[str, set[int]]:
        id2label = saved_labels(pipeline)
        if id2label is None:  # made in memory, so a name keeps only one of its classes
            return {name: {index} for name, index in pipeline.labels.items()}
        return names_of(id2label)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        condition = super().encode_prompts(pipeline, prompts)
        if saved_labels(pipeline) is None:
            named = {
                prompt: index
                for prompt, index in zip(prompts, condition["class_labels"].tolist(), strict=True)
                if prompt != self.unconditional_prompt
            }
            n_classes = self.n_classes(pipeline)
            check_kept(list(named), list(named.values()), pipeline.labels, n_classes)
        return condition

    def class_index(self, pipeline: Any, prompt: str, names: dict[str, set[int]]) -> int:
        if prompt == self.unconditional_prompt:
            return self.n_classes(pipeline)
        return super().class_index(pipeline, prompt, names)


class PixArt(Family):
    """PixArt-alpha and PixArt-sigma.

    The pipelines lower-case and strip prompts. We skip their cleaning of web captions, as it
    depends on which optional packages are installed.
    """

    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline", "PixArtSigmaPAGPipeline")
    other_classes = OLDER_CLASS

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        return encode_masked_text(pipeline, prompts)

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        transformer = pipeline.transformer
        sizes = self.sizes(pipeline, z.to(transformer.dtype))
        return call_denoiser(transformer, z, t, condition.tensors, added_cond_kwargs=sizes)

    def sizes(self, pipeline: Any, z: Tensor) -> dict[str, Tensor | None]:
        """Return size and aspect ratio of the images, which PixArt-alpha reads at 1024 pixels."""
        if not pipeline.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * pipeline.vae_scale_factor for side in z.shape[-2:])
        return {
            "resolution": z.new_tensor([height, width]).expand(len(z), -1),
            "aspect_ratio": z.new_tensor([height / width]).expand(len(z), -1),
        }


class Sana(FlowFamily):
    """Sana.

    Prompts are encoded without the pipeline's instruction to its language model to embellish
    them, so that classes differ only by their own words.
    """

    pipelines = ("SanaPipeline", "SanaPAGPipeline")
    half_dtype = torch.bfloat16

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        return encode_masked_text(pipeline, prompts, complex_human_instruction=None)

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        time = flow_time(t) * pipeline.transformer.config.timestep_scale
        return super().forward(pipeline, z, time, condition)


class Lumina2(FlowFamily):
    """Lumina-Image 2.0. Its time 1 - t runs from noise to image, and it predicts ``x - eps``."""

    pipelines = ("Lumina2Pipeline",)
    half_dtype = torch.bfloat16

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        preface = len(pipeline.tokenizer(f"{pipeline.system_prompt} <Prompt Start> ").input_ids)
        condition = encode_masked_text(pipeline, prompts, spent=preface)
        empty = [row for row, prompt in enumerate(prompts) if not prompt]
        if empty:  # an empty prompt gets no preface, as in training for guidance
            *_, states, mask = encode_text(pipeline, [""], do_classifier_free_guidance=True)
            condition.tensors["encoder_hidden_states"][empty] = states.to(
                pipeline.transformer.dtype
            )
            condition.tensors["encoder_attention_mask"][empty] = mask
        return condition

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        time = 1 - flow_time(t) / self.n_timesteps(pipeline)
        return -super().forward(pipeline, z, time, condition)


class HunyuanDiT(Family):
    """HunyuanDiT, which uses two text encoders, the image's size and rotary positions."""

    pipelines = ("HunyuanDiTPipeline", "HunyuanDiTPAGPipeline")
    components = ("vae", *TWO_ENCODERS, *TWO_TOKENIZERS, "transformer", "scheduler")
    text_encoders = TWO_ENCODERS
    max_tokens = (77, 256)  # of the two encoders; constants of __call__
    base_size = 64  # side of the latents to which positions are scaled; a constant of __call__

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer_2, prompts, self.max_tokens[1])
        clip, t5 = (
            encode_text(
                pipeline,
                prompts,
                dtype=pipeline.transformer.dtype,
                do_classifier_free_guidance=False,
                max_sequence_length=self.max_tokens[k],
                text_encoder_index=k,
            )
            for k in (0, 1)
        )
        return Conditioning(
            encoder_hidden_states=clip[0],
            text_embedding_mask=clip[2],
            encoder_hidden_states_t5=t5[0],
            text_embedding_mask_t5=t5[2],
        )

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        transformer = pipeline.transformer
        size = [side * pipeline.vae_scale_factor for side in z.shape[-2:]]
        # original size, target size, crop
        sizes = torch.tensor([*size, *size, 0, 0], device=z.device, dtype=transformer.dtype)
        return call_denoiser(
            transformer,
            z,
            t.to(transformer.dtype),
            condition.tensors,
            image_meta_size=sizes.repeat(len(z), 1),
            style=torch.zeros_like(t),
            image_rotary_emb=self.positions(pipeline, z),
        )

    def learned_variance(self, pipeline: Any) -> bool:
        return bool(pipeline.transformer.config.learn_sigma)

    def positions(self, pipeline: Any, z: Tensor) -> Any:
        """Compute the rotary embedding of the patch grid as ``__call__`` does."""
        from diffusers.models.embeddings import get_2d_rotary_pos_embed
        from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import (
            get_resize_crop_region_for_grid,
        )

        transformer, patch = pipeline.transformer, self.patch_size(pipeline)
        grid = z.shape[-2] // patch, z.shape[-1] // patch
        width = transformer.inner_dim // transformer.num_heads
        region = get_resize_crop_region_for_grid(grid, self.base_size // patch)
        return get_2d_rotary_pos_embed(width, region, grid, device=z.device, output_type="pt")


def encode_masked_text(
    pipeline: Any, prompts: list[str], spent: int = 0, **options: Any
) -> Conditioning:
    """Encode prompts as hidden states and a mask of padding; a preface takes ``spent`` tokens."""
    warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline) - spent)
    states, mask, *_ = encode_text(pipeline, prompts, do_classifier_free_guidance=False, **options)
    return Conditioning(
        encoder_hidden_states=states.to(pipeline.transformer.dtype), encoder_attention_mask=mask
    )
