"""Tiny pipelines of flow transformers whose structure alone is tested."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from tests.support.language_pipelines import qwen_config, qwen_tokenizer
from tests.support.other_pipelines import t5_text_encoder, t5_tokenizer
from tests.support.pipelines import autoencoder, built_once, heed_prompts

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
