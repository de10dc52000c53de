"""Tiny SD3 and Flux pipelines as one file, under the names that their original code gives."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.original_names import vae_name

SD3 = {
    r"^pos_embed\.proj": "x_embedder.proj",
    r"^pos_embed\.pos_embed": "pos_embed",
    r"^time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"^time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    r"^time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
    r"^time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"^transformer_blocks": "joint_blocks",
    r"attn(2?)\.to_([qkv])\.": r"x_block.attn\1.qkv.\2.",
    r"attn\.add_([qkv])_proj": r"context_block.attn.qkv.\1",
    r"attn(2?)\.norm_([qk])\.": r"x_block.attn\1.ln_\2.",
    r"attn\.norm_added_([qk])": r"context_block.attn.ln_\1",
    r"attn(2?)\.to_out\.0": r"x_block.attn\1.proj",
    r"attn\.to_add_out": "context_block.attn.proj",
    r"norm1\.linear": "x_block.adaLN_modulation.1",
    r"norm1_context\.linear": "context_block.adaLN_modulation.1",
    r"ff\.net\.0\.proj": "x_block.mlp.fc1",
    r"ff\.net\.2": "x_block.mlp.fc2",
    r"ff_context\.net\.0\.proj": "context_block.mlp.fc1",
    r"ff_context\.net\.2": "context_block.mlp.fc2",
}
FLUX = {
    r"^single_transformer_blocks\.(\d+)\.norm\.linear": r"single_blocks.\1.modulation.lin",
    r"^single_transformer_blocks\.(\d+)\.attn\.to_([qkv])": r"single_blocks.\1.linear1.\2",
    r"^single_transformer_blocks\.(\d+)\.proj_mlp": r"single_blocks.\1.linear1.w",
    r"^single_transformer_blocks\.(\d+)\.proj_out": r"single_blocks.\1.linear2",
    r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight": (
        r"single_blocks.\1.norm.query_norm.scale"
    ),
    r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight": (
        r"single_blocks.\1.norm.key_norm.scale"
    ),
    r"^x_embedder": "img_in",
    r"^context_embedder": "txt_in",
    r"^time_text_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"^time_text_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"^time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
    r"^time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
    r"^time_text_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"^time_text_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"^transformer_blocks": "double_blocks",
    r"attn\.to_([qkv])\.": r"img_attn.qkv.\1.",
    r"attn\.add_([qkv])_proj": r"txt_attn.qkv.\1",
    r"attn\.norm_q\.weight": "img_attn.norm.query_norm.scale",
    r"attn\.norm_k\.weight": "img_attn.norm.key_norm.scale",
    r"attn\.norm_added_q\.weight": "txt_attn.norm.query_norm.scale",
    r"attn\.norm_added_k\.weight": "txt_attn.norm.key_norm.scale",
    r"attn\.to_out\.0": "img_attn.proj",
    r"attn\.to_add_out": "txt_attn.proj",
    r"norm1\.linear": "img_mod.lin",
    r"norm1_context\.linear": "txt_mod.lin",
    r"ff\.net\.0\.proj": "img_mlp.0",
    r"ff\.net\.2": "img_mlp.2",
    r"ff_context\.net\.0\.proj": "txt_mlp.0",
    r"ff_context\.net\.2": "txt_mlp.2",
}
ENCODERS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}


def renamed(tensors, table, last_context):
    """Tensors by the names of a table; there queries, keys and values are one.

    The original code has shift and scale in the other order where only these two are computed: in
    the last layer, and in ``last_context``.
    """
    found, fused = {}, {}
    for key, tensor in tensors.items():
        for ours, theirs in table.items():
            key = re.sub(ours, theirs, key)
        if "final_layer.adaLN" in key or (last_context and last_context in key):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        if match := re.fullmatch(r"(.*)\.([qkvw])\.(weight|bias)", key):
            fused.setdefault(f"{match[1]}.{match[3]}", {})[match[2]] = tensor
        else:
            found[key] = tensor
    for key, parts in fused.items():
        found[key] = torch.cat([parts[name] for name in "qkvw" if name in parts])
    return found


def flow_file(pipeline, path, inside, prefix="model.diffusion_model.") -> Path:
    """Write networks of an SD3 or Flux pipeline, those named by ``inside``, as one file.

    The configurations, and the weights of the other networks, lie in the folder of the same name.
    """
    path, transformer = Path(path), pipeline.transformer
    is_sd3 = type(transformer).__name__.startswith("SD3")
    last = f"joint_blocks.{len(transformer.transformer_blocks) - 1}.context_block.adaLN"
    own = renamed(transformer.state_dict(), *((SD3, last) if is_sd3 else (FLUX, None)))
    found = {prefix + key: tensor for key, tensor in own.items()}
    if "vae" in inside:
        blocks = len(pipeline.vae.config.up_block_types)
        for key, tensor in pipeline.vae.state_dict().items():
            found[f"first_stage_model.{vae_name(key, blocks)}"] = tensor
    for name in inside - {"transformer", "vae"}:
        for key, tensor in getattr(pipeline, name).state_dict().items():
            found[f"text_encoders.{ENCODERS[name]}.transformer.{key}"] = tensor
    folder = path.with_suffix("")
    pipeline.save_pretrained(folder)
    for name in inside:
        for weights in (folder / name).glob("*.safetensors"):
            weights.unlink()
    save_file({key: tensor.contiguous().clone() for key, tensor in found.items()}, path)
    return path
