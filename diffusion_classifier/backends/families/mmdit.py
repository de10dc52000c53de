"""Multimodal diffusion transformers trained by flow matching: Stable Diffusion 3, Flux, and more.

Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", ICML 2024
(arXiv 2403.03206). The transformer attends to text and image tokens jointly and predicts the
velocity ``eps - x``. Its time is the noise level ``sigma`` times the number of timesteps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ..base import Conditioning
from .base import TWO_ENCODERS, TWO_TOKENIZERS, FlowFamily, call_denoiser, flow_time
from .parts.autoencoder import mode_of_film
from .parts.text import encode_text, most_tokens, ragged, rows_of_each_length, warn_truncated


class StableDiffusion3(FlowFamily):
    """Stable Diffusion 3 and 3.5. The pipeline may lack the T5 encoder."""

    pipelines = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3PAGPipeline",
        "StableDiffusion3PAGImg2ImgPipeline",
    )
    text_encoders = (*TWO_ENCODERS, "text_encoder_3")
    components = (
        "vae",
        *text_encoders,
        *TWO_TOKENIZERS,
        "tokenizer_3",
        "transformer",
        "scheduler",
    )
    optional = ("text_encoder_3", "tokenizer_3")

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        if pipeline.text_encoder_3 is None:
            warn_truncated(pipeline.tokenizer, prompts)
        else:  # T5 reads prompts that are too long for CLIP
            warn_truncated(pipeline.tokenizer_3, prompts, most_tokens(pipeline))
        embeddings, _, pooled, _ = encode_text(
            pipeline, prompts, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False
        )
        return text_and_pooled(pipeline, embeddings, pooled)

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        return super().forward(pipeline, z, flow_time(t), condition)


class PackedFlowFamily(FlowFamily):
    """Adapter for flow transformers that read a latent as a sequence of patches.

    Some were distilled to imitate guidance of a given scale. We pass 1, at which guidance has no
    effect, because errors must be those of the plain conditional prediction: under stronger
    guidance, the prediction is no longer the expected noise.
    """

    half_dtype = torch.bfloat16

    def latent_channels(self, pipeline: Any) -> int:
        return pipeline.transformer.config.in_channels // self.patch_size(pipeline) ** 2

    def patch_size(self, pipeline: Any) -> int:
        return 2

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        side = pipeline.default_sample_size * pipeline.vae_scale_factor
        return side, side

    @abstractmethod
    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        """Return arguments that give the positions of patches and tokens, or mask padding."""

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        transformer, side = pipeline.transformer, self.patch_size(pipeline)
        n, _, height, width = z.shape
        tensors = {**condition.tensors, **self.positions(pipeline, z, condition)}
        if transformer.config.get("guidance_embeds"):
            tensors["guidance"] = torch.ones(n, device=z.device)
        packed = call_denoiser(transformer, pack(z, side), self.time(pipeline, t), tensors)
        return unpack(packed, height, width, side)

    def time(self, pipeline: Any, t: Tensor) -> Tensor:
        """Return the time that the network reads: the noise level."""
        return flow_time(t) / self.n_timesteps(pipeline)


class UnmaskedFlowFamily(PackedFlowFamily):
    """Adapter for those that attend to all tokens of text, whose padding would change answers.

    Conditions are ``ragged``. Rows of the same number of tokens share a call of the network.
    """

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        output = torch.empty_like(z, dtype=torch.float32)
        for length, rows in rows_of_each_length(condition):
            states = Conditioning(encoder_hidden_states=condition["states"][rows, :length])
            output[rows] = super().forward(pipeline, z[rows], t[rows], states).float()
        return output


class Flux(PackedFlowFamily):
    """FLUX.1 dev, which was distilled to imitate guidance, and FLUX.1 schnell."""

    pipelines = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxKontextPipeline")
    components = ("vae", *TWO_ENCODERS, *TWO_TOKENIZERS, "transformer", "scheduler")
    text_encoders = TWO_ENCODERS

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer_2, prompts, most_tokens(pipeline))
        embeddings, pooled, _ = encode_text(pipeline, prompts)
        return text_and_pooled(pipeline, embeddings, pooled)

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        n, _, height, width = z.shape
        n_tokens = condition["encoder_hidden_states"].shape[1]
        like = {"device": z.device, "dtype": pipeline.transformer.dtype}
        return {
            "img_ids": pipeline._prepare_latent_image_ids(n, height // 2, width // 2, **like),
            "txt_ids": torch.zeros(n_tokens, 3, **like),
        }


class AuraFlow(FlowFamily):
    """AuraFlow."""

    pipelines = ("AuraFlowPipeline",)

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        side = signature(pipeline.__call__).parameters["height"].default
        return side, side

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, most_tokens(pipeline))
        embeddings, *_ = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        return Conditioning(encoder_hidden_states=embeddings.to(pipeline.transformer.dtype))

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        time = flow_time(t) / self.n_timesteps(pipeline)
        return super().forward(pipeline, z, time.to(pipeline.transformer.dtype), condition)


class QwenImage(PackedFlowFamily):
    """Qwen-Image."""

    pipelines = ("QwenImagePipeline", "QwenImageImg2ImgPipeline")
    max_tokens = 512  # the default of __call__

    def posterior_mode(self, vae: Any, images: Tensor) -> Tensor:
        return mode_of_film(vae, images)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, self.max_tokens)
        states, mask = encode_text(pipeline, prompts, max_sequence_length=self.max_tokens)
        if mask is None:  # no prompt is padded
            mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        return Conditioning(
            encoder_hidden_states=states.to(pipeline.transformer.dtype),
            encoder_hidden_states_mask=mask,
        )

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        n, _, height, width = z.shape
        return {"img_shapes": [[(1, height // 2, width // 2)]] * n}


class QwenImage21(UnmaskedFlowFamily):
    """Qwen-Image 2.1, whose autoencoder also reads how opaque an image is.

    The place of the image among the tokens follows the text and its padding.
    """

    pipelines = ("QwenImage21Pipeline",)
    components = ("vae", "text_encoder", "processor", "transformer", "scheduler")
    other_classes: Mapping[str, tuple[str, ...]] = {
        **FlowFamily.other_classes,
        "processor": ("Qwen3VLProcessor",),
    }
    always = ("processor",)

    def patch_size(self, pipeline: Any) -> int:
        return pipeline.transformer.config.patch_size

    def divisor(self, pipeline: Any) -> int:
        return 2 * super().divisor(pipeline)  # the text has a slot for 2 x 2 patches

    def image_size(self, pipeline: Any) -> tuple[int, int]:
        side = signature(pipeline.__call__).parameters["output_resolution"].default
        return side, side

    def posterior_mode(self, vae: Any, images: Tensor) -> Tensor:
        return mode_of_film(vae, torch.cat([images, torch.ones_like(images[:, :1])], dim=1))

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        states = [encode_text(pipeline, [prompt])[0][0] for prompt in prompts]
        return ragged([part.to(pipeline.transformer.dtype) for part in states])

    def positions(self, pipeline: Any, z: Tensor, condition: Conditioning) -> dict[str, Any]:
        n, _, height, width = z.shape
        slots = torch.arange(condition["encoder_hidden_states"].shape[1] + height * width // 4)
        of_image = slots >= condition["encoder_hidden_states"].shape[1]
        return {
            "img_shapes": [[(1, height, width)]] * n,
            "img_mask": of_image.to(z.device).expand(n, -1),
        }


def text_and_pooled(pipeline: Any, embeddings: Tensor, pooled: Tensor) -> Conditioning:
    """Make a Conditioning of token and pooled embeddings in the transformer's dtype."""
    dtype = pipeline.transformer.dtype
    return Conditioning(
        encoder_hidden_states=embeddings.to(dtype), pooled_projections=pooled.to(dtype)
    )


def pack(z: Tensor, side: int = 2) -> Tensor:
    """Rearrange latents [R, C, H, W] as a sequence of patches [R, H/side * W/side, C * side^2].

    Examples
    --------
    >>> z = torch.arange(8.0).view(1, 1, 2, 4)
    >>> pack(z).tolist()
    [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    >>> torch.equal(unpack(pack(z), 2, 4), z)
    True
    """
    patches = z.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(sequence: Tensor, height: int, width: int, side: int = 2) -> Tensor:
    """Undo ``pack`` and return latents [R, C, height, width]."""
    rows, columns = height // side, width // side
    last = sequence[:, -rows * columns :]  # after the text, if the network returns that, too
    patches = last.unflatten(2, (-1, side, side)).unflatten(1, (rows, columns))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
