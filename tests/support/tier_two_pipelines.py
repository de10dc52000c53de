"""Tiny pipelines of families whose structure alone is tested."""

from __future__ import annotations

import string
from typing import Any

import diffusers
import transformers

from tests.support.other_pipelines import (
    gemma_text_encoder,
    gemma_tokenizer,
    t5_text_encoder,
    t5_tokenizer,
)
from tests.support.pipelines import (
    LETTERS,
    UNSAFE,
    autoencoder,
    built_once,
    heed_prompts,
    latent_consistency_xl,
    stable_diffusion_xl,
)


@built_once
def aura_flow() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    config = transformers.UMT5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )
    louder = {"linear.weight": 5.0, "to_v": 5.0, "to_out": 5.0, "context": 5.0, "proj_out": 3.0}
    heed_prompts(transformer, louder)
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(),
        "text_encoder": transformers.UMT5EncoderModel(config),
        "transformer": transformer,
    }


def tiny_aura_flow() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73)
    return diffusers.AuraFlowPipeline(**aura_flow(), scheduler=scheduler)


@built_once
def lumina() -> dict[str, Any]:
    tokenizer = gemma_tokenizer()
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(300, 32, 32),
        cap_feat_dim=16,
    )
    heed_prompts(transformer, {"norm2": 5.0, "norm1.linear": 5.0})
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(halvings=3, shift_factor=0.1),
        "text_encoder": gemma_text_encoder(tokenizer),
        "transformer": transformer,
    }


def tiny_lumina() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0)
    return diffusers.Lumina2Pipeline(**lumina(), scheduler=scheduler)


@built_once
def hunyuan() -> dict[str, Any]:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + c for c in LETTERS)]
    tokenizer = transformers.BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    t5 = t5_tokenizer()
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        num_layers=4,
        num_attention_heads=2,
        attention_head_dim=8,
        hidden_size=16,
        cross_attention_dim=16,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
    )
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": t5,
        "vae": autoencoder(halvings=3),
        "text_encoder": transformers.BertModel(config),
        "text_encoder_2": t5_text_encoder(t5),
        "transformer": transformer,
    }


def tiny_hunyuan() -> Any:
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_end=0.03, prediction_type="v_prediction"
    )
    return diffusers.HunyuanDiTPipeline(**hunyuan(), scheduler=scheduler, **UNSAFE)


@built_once
def qwen_image() -> dict[str, Any]:
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ", "Ċ"]
    tokens = ["<|endoftext|>", *letters]
    tokenizer = transformers.Qwen2Tokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[])
    attention = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
            **attention,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
        },
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    heed_prompts(transformer, {"add_v_proj": 20.0})
    return {
        "tokenizer": tokenizer,
        "vae": vae,
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "transformer": transformer,
    }


def tiny_qwen_image() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.QwenImagePipeline(**qwen_image(), scheduler=scheduler)


def tiny_edm() -> Any:
    """SDXL trained with the preconditioning of EDM, as CosXL."""
    scheduler = diffusers.EDMEulerScheduler(sigma_data=1.0, prediction_type="v_prediction")
    return diffusers.StableDiffusionXLPipeline(**stable_diffusion_xl(), scheduler=scheduler)


@built_once
def playground() -> dict[str, Any]:
    parts = stable_diffusion_xl()
    return {**parts, "vae": latent_consistency_xl()["vae"]}  # normalised by channel


def tiny_playground() -> Any:
    """As Playground 2.5: latents normalised by channel, deviation 0.5."""
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_data=0.5)
    return diffusers.StableDiffusionXLPipeline(**playground(), scheduler=scheduler)
