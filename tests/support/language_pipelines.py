"""Tiny pipelines whose prompts are read by language models, and relatives of Flux."""

from __future__ import annotations

import string
import tempfile
from typing import Any

import diffusers
import sentencepiece
import torch
import transformers

from diffusion_classifier.backends.families.parts.processors import half_like
from tests.support.other_pipelines import t5_text_encoder, t5_tokenizer
from tests.support.pipelines import (
    LETTERS,
    LEVELS,
    autoencoder,
    built_once,
    clip_text_encoder,
    clip_tokenizer,
    conditional_unet,
    heed_prompts,
)

CHAT = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}me {% endif %}"
)
CHAT_OF_PARTS = CHAT.replace("message['content']", "message['content'][0]['text']")
ATTENTION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
NARROW = {**ATTENTION, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}


def qwen_tokenizer(**options: Any) -> Any:
    """A Qwen tokenizer that spells, with a template of chats."""
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ", "Ċ"]
    tokens = ["<|endoftext|>", *letters]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[], **options)
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_config(tokenizer: Any, layers: int, shape: dict[str, int] = ATTENTION) -> Any:
    return transformers.Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=layers, **shape)


def glm_tokenizer() -> Any:
    """A ChatGLM tokenizer that spells."""
    from diffusers.pipelines.kolors import ChatGLMTokenizer

    folder = tempfile.mkdtemp()  # the tokenizer copies its file when it is saved
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LETTERS),
        model_prefix=f"{folder}/tokenizer",
        model_type="char",
        vocab_size=len(LETTERS) + 4,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return ChatGLMTokenizer(f"{folder}/tokenizer.model")


def glm_text_encoder(tokenizer: Any) -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        ffn_hidden_size=16,
        kv_channels=8,
        num_attention_heads=2,
        multi_query_attention=True,
        original_rope=True,
    )
    encoder = ChatGLMModel(config, empty_init=False)
    for name, parameter in encoder.named_parameters():
        if "layernorm" in name:  # left as the memory was
            torch.nn.init.ones_(parameter)
    return encoder


@built_once
def kolors() -> dict[str, Any]:
    tokenizer = glm_tokenizer()
    unet = conditional_unet(
        cross_attention_dim=32,
        encoder_hid_dim=16,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(),
        "text_encoder": glm_text_encoder(tokenizer),
        "unet": unet,
    }


def tiny_kolors() -> Any:
    return diffusers.KolorsPipeline(
        **kolors(), scheduler=diffusers.EulerDiscreteScheduler(**LEVELS)
    )


@built_once
def z_image() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[600, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    heed_prompts(transformer, {"attention.to_v": 5.0, "attention.to_out": 5.0})
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(halvings=3, shift_factor=0.1),
        "text_encoder": transformers.Qwen3Model(qwen_config(tokenizer, layers=2)),
        "transformer": transformer,
    }


def tiny_z_image() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.ZImagePipeline(**z_image(), scheduler=scheduler)


@built_once
def flux2_klein() -> dict[str, Any]:
    tokenizer = qwen_tokenizer()
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
    vae.bn.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]).repeat_interleave(4))
    vae.bn.running_var.copy_(torch.tensor([0.5, 1.5, 1.0, 2.0]).repeat_interleave(4))
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    heed_prompts(transformer, {"add_v_proj": 5.0})
    return {
        "tokenizer": tokenizer,
        "vae": vae,
        "text_encoder": transformers.Qwen3ForCausalLM(qwen_config(tokenizer, 27, NARROW)),
        "transformer": transformer,
    }


def tiny_flux2_klein() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.Flux2KleinPipeline(**flux2_klein(), scheduler=scheduler)


@built_once
def flux2() -> dict[str, Any]:
    parts = flux2_klein()
    tokenizer = qwen_tokenizer()
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 30, **NARROW}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Mistral3Config(
        text_config={"model_type": "mistral", **text},
        vision_config={"model_type": "pixtral", **vision},
    )
    transformer = diffusers.Flux2Transformer2DModel.from_config(
        parts["transformer"].config, guidance_embeds=True
    )
    heed_prompts(transformer, {"add_v_proj": 5.0})
    return {
        "tokenizer": half_like("PixtralProcessor")(tokenizer, chat_template=CHAT_OF_PARTS),
        "vae": parts["vae"],
        "text_encoder": transformers.Mistral3ForConditionalGeneration(config),
        "transformer": transformer,
    }


def tiny_flux2() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.Flux2Pipeline(**flux2(), scheduler=scheduler)


@built_once
def hidream() -> dict[str, Any]:
    clip, t5, llama = clip_tokenizer(248), t5_tokenizer(), qwen_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(llama), num_hidden_layers=2, attn_implementation="eager", **ATTENTION
    )
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[32, 16],
        text_emb_dim=16,
        num_routed_experts=2,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(16, 16),
        llama_layers=[0, 1],
    )
    projected = transformers.CLIPTextModelWithProjection
    return {
        "tokenizer": clip,
        "tokenizer_2": clip,
        "tokenizer_3": t5,
        "tokenizer_4": llama,
        "vae": autoencoder(shift_factor=0.1),
        "text_encoder": clip_text_encoder(clip, projected),
        "text_encoder_2": clip_text_encoder(clip, projected),
        "text_encoder_3": t5_text_encoder(t5),
        "text_encoder_4": transformers.LlamaForCausalLM(config),
        "transformer": transformer,
    }


def tiny_hidream() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.HiDreamImagePipeline(**hidream(), scheduler=scheduler)


@built_once
def chroma() -> dict[str, Any]:
    tokenizer = t5_tokenizer()
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=64,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(shift_factor=0.1),
        "text_encoder": t5_text_encoder(tokenizer),
        "transformer": transformer,
    }


def tiny_chroma() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.ChromaPipeline(**chroma(), scheduler=scheduler)


@built_once
def cogview4() -> dict[str, Any]:
    tokenizer = qwen_tokenizer(padding_side="left")
    config = transformers.GlmConfig(
        vocab_size=len(tokenizer), num_hidden_layers=2, pad_token_id=0, **ATTENTION
    )
    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=16,
        time_embed_dim=16,
        condition_dim=8,
        sample_size=4,
        rope_axes_dim=(16, 16),
    )
    heed_prompts(transformer, {"attn1.to_v": 3.0, "attn1.to_out": 3.0})
    return {
        "tokenizer": tokenizer,
        "vae": autoencoder(halvings=3),
        "text_encoder": transformers.GlmModel(config),
        "transformer": transformer,
    }


def tiny_cogview4() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return diffusers.CogView4Pipeline(**cogview4(), scheduler=scheduler)
