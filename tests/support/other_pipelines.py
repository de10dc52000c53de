"""Tiny pipelines beyond Stable Diffusion: transformers, and diffusion of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import transformers

from tests.support.pipelines import (
    CLASS_NAMES,
    LETTERS,
    UNSAFE,
    autoencoder,
    built_once,
    clip_text_encoder,
    clip_tokenizer,
    conditional_unet,
)


def t5_tokenizer() -> Any:
    """A T5 tokenizer that spells."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    vocabulary = [*special, *((letter, -2.0) for letter in LETTERS)]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def t5_text_encoder(tokenizer: Any) -> Any:
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


@built_once
def stable_diffusion_3() -> dict[str, Any]:
    tokenizer, t5 = clip_tokenizer(), t5_tokenizer()
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "tokenizer_3": t5,
        "vae": autoencoder(shift_factor=0.1),
        "text_encoder": clip_text_encoder(tokenizer, transformers.CLIPTextModelWithProjection),
        "text_encoder_2": clip_text_encoder(tokenizer, transformers.CLIPTextModelWithProjection),
        "text_encoder_3": t5_text_encoder(t5),
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=32,
            pooled_projection_dim=16,
        ),
    }


def tiny_sd3(**components: Any) -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.StableDiffusion3Pipeline(
        **{**stable_diffusion_3(), **components}, scheduler=scheduler
    )


@built_once
def flux() -> dict[str, Any]:
    tokenizer, t5 = clip_tokenizer(), t5_tokenizer()
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": t5,
        "vae": autoencoder(shift_factor=0.1),
        "text_encoder": clip_text_encoder(tokenizer),
        "text_encoder_2": t5_text_encoder(t5),
        "transformer": flux_transformer(guidance_embeds=True),
    }


def flux_transformer(**config: Any) -> Any:
    return diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        **config,
    )


@built_once
def flux_schnell() -> dict[str, Any]:
    return {**flux(), "transformer": flux_transformer(guidance_embeds=False)}


def tiny_flux(components: Callable[[], dict[str, Any]] = flux) -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.FluxPipeline(**components(), scheduler=scheduler)


@built_once
def dit() -> dict[str, Any]:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        num_embeds_ada_norm=len(CLASS_NAMES),
    )
    return {"vae": autoencoder(), "transformer": transformer}


def tiny_dit() -> Any:
    """Its six classes are named in such a way that names must be read with care."""
    scheduler = diffusers.DDIMScheduler()
    pipeline = diffusers.DiTPipeline(**dit(), scheduler=scheduler, id2label=CLASS_NAMES)
    pipeline.register_to_config(id2label=CLASS_NAMES)  # it keeps only one class of each name
    return pipeline


def pixart(sample_size: int) -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=sample_size,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        cross_attention_dim=24,
        caption_channels=32,
    )
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(),
        "text_encoder": t5_text_encoder(tokenizer),
        "transformer": transformer,
    }


pixart_alpha = built_once(lambda: pixart(sample_size=128))  # the size at which it reads sizes
pixart_sigma = built_once(lambda: pixart(sample_size=8))


def tiny_pixart_alpha() -> Any:
    scheduler = diffusers.DPMSolverMultistepScheduler()
    return diffusers.PixArtAlphaPipeline(**pixart_alpha(), scheduler=scheduler)


def tiny_pixart_sigma() -> Any:
    scheduler = diffusers.DPMSolverMultistepScheduler()
    return diffusers.PixArtSigmaPipeline(**pixart_sigma(), scheduler=scheduler)


def gemma_tokenizer() -> Any:
    """A Gemma tokenizer that spells."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=512)


def gemma_text_encoder(tokenizer: Any) -> Any:
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return transformers.Gemma2Model(config)


@built_once
def sana() -> dict[str, Any]:
    tokenizer = gemma_tokenizer()
    transformer = diffusers.SanaTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        timestep_scale=0.5,
    )
    vae = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.4,
    )
    return {
        "tokenizer": tokenizer,
        "vae": vae,
        "text_encoder": gemma_text_encoder(tokenizer),
        "transformer": transformer,
    }


def tiny_sana() -> Any:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.SanaPipeline(**sana(), scheduler=scheduler)


def class_unet(channels: int = 3, **config: Any) -> Any:
    return diffusers.UNet2DModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        **{"num_class_embeds": 4, **config},
    )


class_conditional = built_once(lambda: {"unet": class_unet()})


def tiny_ddpm() -> Any:
    return diffusers.DDPMPipeline(**class_conditional(), scheduler=diffusers.DDPMScheduler())


@built_once
def deepfloyd() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    unet = conditional_unet(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        cross_attention_dim=16,
        encoder_hid_dim=32,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=4,
    )
    return {"tokenizer": tokenizer, "text_encoder": t5_text_encoder(tokenizer), "unet": unet}


def tiny_if() -> Any:
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True
    )
    return diffusers.IFPipeline(**deepfloyd(), scheduler=scheduler, watermarker=None, **UNSAFE)
