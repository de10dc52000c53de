"""Pixel-space diffusion: class-conditional UNets (DDPM) and DeepFloyd IF.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020 (arXiv 2006.11239). There is no
autoencoder: the latent is the image itself, in [-1, 1]. The first stage of DeepFloyd IF follows
Imagen (Saharia et al., arXiv 2205.11487): 64 x 64 pixels, a T5 text encoder, a learned variance.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import InputValueError
from ..base import Conditioning, to_grey
from .base import ClassConditionalFamily, Family
from .parts.text import encode_text, warn_truncated


class PixelFamily(Family):
    """Adapter for UNets that denoise images directly, so that the latents are the images."""

    denoiser = "unet"

    def downsampling(self, pipeline: Any) -> int:
        return 1

    def patch_size(self, pipeline: Any) -> int:
        """Return the factor by which sides must divide: every block but the last halves them."""
        return 2 ** (len(pipeline.unet.config.block_out_channels) - 1)

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        """Return the images themselves, in float32, on the pipeline's device."""
        self.check_sides(pipeline, images)
        return images.to(pipeline._execution_device).float()


class ClassConditionalUNet(PixelFamily, ClassConditionalFamily):
    """A ``UNet2DModel`` trained with class labels. A label is the index of a class.

    A UNet with one channel reads images converted to grey.
    """

    pipelines = ("DDPMPipeline", "DDIMPipeline")
    components = ("unet", "scheduler")

    def check(self, pipeline: Any) -> None:
        config = pipeline.unet.config
        if config.num_class_embeds is None or config.class_embed_type is not None:
            raise InputValueError(
                "the UNet does not read a class index (num_class_embeds="
                f"{config.num_class_embeds}, class_embed_type={config.class_embed_type!r}), so it "
                "cannot tell classes apart; use a class-conditional model, or wrap yours with a "
                "FunctionBackend."
            )
        if config.in_channels not in (1, 3):
            raise InputValueError(
                f"the UNet takes {config.in_channels} channels, not 1 (grey) or 3 (colour); wrap "
                "it with a FunctionBackend."
            )

    def n_classes(self, pipeline: Any) -> int:
        return pipeline.unet.config.num_class_embeds

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        images = super().encode_images(pipeline, images)
        return to_grey(images) if pipeline.unet.config.in_channels == 1 else images


class DeepFloydIF(PixelFamily):
    """The first stage of DeepFloyd IF.

    The pipeline lower-cases and strips prompts. We skip its cleaning of web captions, as it
    depends on which optional packages are installed.
    """

    pipelines = ("IFPipeline", "IFImg2ImgPipeline")
    components = ("text_encoder", "tokenizer", "unet", "scheduler")
    max_tokens = 77  # a constant of encode_prompt

    def check(self, pipeline: Any) -> None:
        channels = pipeline.unet.config.in_channels
        if channels != 3:
            raise InputValueError(
                f"the UNet takes {channels} channels, not the 3 of an image: later stages of "
                "DeepFloyd IF also read a smaller image; use stage I."
            )

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        warn_truncated(pipeline.tokenizer, prompts, self.max_tokens)
        states, _ = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        return Conditioning(encoder_hidden_states=states.to(pipeline.unet.dtype))
