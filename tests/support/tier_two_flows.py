"""Tiny pipelines of flow transformers whose structure alone is tested."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from tests.support.language_pipelines import (
    ATTENTION,
    CHAT_OF_PARTS,
    qwen_config,
    qwen_tokenizer,
)
from tests.support.other_pipelines import t5_text_encoder, t5_tokenizer
from tests.support.pipelines import autoencoder, built_once, heed_prompts
from tests.support.tier_two_pipelines import qwen_image

FLOW_NETWORK = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "axes_dims_rope": (4, 4, 8),
}


@built_once
def ovis_image() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    transformer = diffusers.OvisImageTransformer2DModel(
        in_channels=16, out_channels=16, joint_attention_dim=16, **FLOW_NETWORK
    )
    heed_prompts(transformer, {"add_v_proj": 5.0})
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(shift_factor=0.1),
        "text_encoder": transformers.Qwen3Model(qwen_config(tokenizer, layers=2)),
        "transformer": transformer,
    }


def tiny_ovis_image() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.OvisImagePipeline(**ovis_image(), scheduler=scheduler)


@built_once
def bria() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    transformer = diffusers.BriaTransformer2DModel(
        in_channels=16, joint_attention_dim=32, **FLOW_NETWORK
    )
    heed_prompts(transformer, {"add_v_proj": 5.0})
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(shift_factor=0.1),
        "text_encoder": t5_text_encoder(tokenizer),
        "transformer": transformer,
    }


def tiny_bria() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.BriaPipeline(**bria(), scheduler=scheduler)


@built_once
def bria_fibo() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    config = transformers.SmolLM3Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=0,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, False, False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    transformer = diffusers.BriaFiboTransformer2DModel(
        **{**FLOW_NETWORK, "num_layers": 2, "num_single_layers": 2},  # more than layers of text
        in_channels=4,
        joint_attention_dim=16,
        text_encoder_dim=8,
    )
    heed_prompts(transformer, {"add_v_proj": 5.0})
    return {
        "tokenizer": tokenizer,
        "vae": vae,
        "text_encoder": transformers.SmolLM3ForCausalLM(config),
        "transformer": transformer,
    }


def tiny_bria_fibo() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.BriaFiboPipeline(**bria_fibo(), scheduler=scheduler)


MEDIA = ["<|image_pad|>", "<|video_pad|>"]


class Qwen3VLProcessor(transformers.Qwen3VLProcessor):
    """The half for texts of Qwen3-VL's processor: its half for films needs torchvision."""

    __module__ = transformers.Qwen3VLProcessor.__module__  # as folders name it

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = MEDIA
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids(MEDIA)
        transformers.ProcessorMixin.__init__(self, tokenizer, chat_template=chat_template)


transformers.Qwen3VLProcessor = Qwen3VLProcessor


@built_once
def qwen_image_21() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    tokenizer.add_tokens([*MEDIA, "<|im_start|>", "<|im_end|>"], special_tokens=True)
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]},
            **ATTENTION,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [],
        },
    )
    vae = diffusers.AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False] * 4,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )
    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    return {
        "processor": Qwen3VLProcessor(tokenizer, chat_template=CHAT_OF_PARTS),
        "vae": vae,
        "text_encoder": transformers.Qwen3VLForConditionalGeneration(config),
        "transformer": transformer,
    }


def tiny_qwen_image_21() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.QwenImage21Pipeline(**qwen_image_21(), scheduler=scheduler)


@built_once
def hunyuan_image() -> dict[str, Any]:
    parts, glyphs = qwen_image(), transformers.ByT5Tokenizer(extra_ids=0)
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        text_embed_2_dim=32,
        rope_axes_dim=(4, 4),
        guidance_embeds=True,
    )
    heed_prompts(transformer, {"add_v_proj": 20.0})
    vae = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=16,
        scaling_factor=0.75,
    )
    return {
        "tokenizer": parts["tokenizer"],
        "text_encoder": parts["text_encoder"],
        "tokenizer_2": glyphs,
        "text_encoder_2": t5_text_encoder(glyphs),
        "transformer": transformer,
        "vae": vae,
    }


def tiny_hunyuan_image() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    return diffusers.HunyuanImagePipeline(**hunyuan_image(), scheduler=scheduler)
