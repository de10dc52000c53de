"""Tiny pipelines of flow transformers whose structure alone is tested."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from diffusion_classifier.backends.families.parts.processors import half_like
from tests.support.language_pipelines import (
    ATTENTION,
    CHAT_OF_PARTS,
    qwen_config,
    qwen_tokenizer,
)
from tests.support.other_pipelines import t5_text_encoder, t5_tokenizer
from tests.support.pipelines import (
    autoencoder,
    built_once,
    clip_text_encoder,
    clip_tokenizer,
    heed_prompts,
)
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
        "processor": half_like("Qwen3VLProcessor")(tokenizer, chat_template=CHAT_OF_PARTS),
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


@built_once
def kandinsky5() -> dict[str, Any]:
    tokenizer, clip = qwen_tokenizer(), clip_tokenizer(77)
    config = qwen_image()["text_encoder"].config
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=16,
        time_dim=16,
        model_dim=16,
        ff_dim=16,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 2, 2),
    )
    for name, parameter in transformer.named_parameters():
        if "modulation" in name:  # zero before training: the text would not matter
            torch.nn.init.normal_(parameter, std=0.5)
    return {
        "tokenizer": half_like("Qwen2VLProcessor")(tokenizer),
        "tokenizer_2": clip,
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "text_encoder_2": clip_text_encoder(clip),
        "transformer": transformer,
        "vae": autoencoder(halvings=3, shift_factor=0.1),
    }


def tiny_kandinsky5() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    return diffusers.Kandinsky5T2IPipeline(**kandinsky5(), scheduler=scheduler)
