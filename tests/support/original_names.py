"""Tiny pipelines as one file, under the names that the original code of Stable Diffusion gives."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "final_layer_norm": "ln_final",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(key, attends):
    """Name of a tensor of a UNet of one layer per block; ``attends`` tells of up blocks."""
    for ours, theirs in UNET.items():
        if key.startswith(ours + "."):
            return theirs + key.removeprefix(ours)
    for ours, theirs in RESNET.items():
        key = re.sub(rf"(resnets\.\d+)\.{ours}\.", rf"\1.{theirs}.", key)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        kind, n, rest = match.groups()
        return f"middle_block.{int(n) * 2 if kind == 'resnets' else 1}.{rest}"
    side, block, kind, n, rest = re.match(
        r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key
    ).groups()
    block, n = int(block), int(n)
    place = {"resnets": "0", "attentions": "1"}.get(kind)
    if side == "down":
        place = place or "0.op"
        number = 2 * block + 1 + (n if kind != "downsamplers" else 1)
        return (
            f"input_blocks.{number}.{place}.{rest.removeprefix('conv.') if 'op' in place else rest}"
        )
    if kind == "upsamplers":
        return f"output_blocks.{2 * block + 1}.{2 if attends[block] else 1}.{rest}"
    return f"output_blocks.{2 * block + n}.{place}.{rest}"


def vae_name(key, blocks):
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0." in key:
        for ours, theirs in ATTENTION.items():
            key = key.replace(f"attentions.0.{ours}.", f"attentions.0.{theirs}.")
        return key.replace("mid_block.attentions.0", "mid.attn_1")
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    turned = {"resnets": "block", "upsamplers.0": "upsample"}
    for ours, theirs in turned.items():
        pattern = rf"up_blocks\.(\d)\.{re.escape(ours)}"
        key = re.sub(pattern, lambda m, t=theirs: f"up.{blocks - 1 - int(m[1])}.{t}", key)
    return key


def open_clip_tensors(tensors):
    """CLIP's tensors by OpenCLIP's names; there queries, keys and values are one."""
    found, fused = {}, {}
    for key, tensor in tensors.items():
        key = key.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP.items():
            key = key.replace(ours, theirs)
        if match := re.fullmatch(r"(.*attn\.)([qkv])_proj\.(weight|bias)", key):
            fused.setdefault(f"{match[1]}in_proj_{match[3]}", {})[match[2]] = tensor
            continue
        turned = key == "text_projection.weight"
        found["text_projection" if turned else key] = tensor.T if turned else tensor
    for key, parts in fused.items():
        found[key] = torch.cat([parts[name] for name in "qkv"])
    return found


def original_tensors(pipeline):
    """All tensors of a tiny Stable Diffusion pipeline by their original names."""
    attends = ["CrossAttn" in kind for kind in pipeline.unet.config.up_block_types]
    blocks = len(pipeline.vae.config.up_block_types)
    found = {}
    for key, tensor in pipeline.unet.state_dict().items():
        found[f"model.diffusion_model.{unet_name(key, attends)}"] = tensor
    for key, tensor in pipeline.vae.state_dict().items():
        found[f"first_stage_model.{vae_name(key, blocks)}"] = tensor
    second = getattr(pipeline, "text_encoder_2", None)
    first = "cond_stage_model" if second is None else "conditioner.embedders.0"
    for key, tensor in pipeline.text_encoder.state_dict().items():
        found[f"{first}.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    if second is not None:
        named = open_clip_tensors(second.state_dict())
        found |= {f"conditioner.embedders.1.model.{key}": value for key, value in named.items()}
    return {key: tensor.contiguous() for key, tensor in found.items()}


def single_file(pipeline, path) -> Path:
    """Write a pipeline as one file, and its configurations in the folder of the same name."""
    path = Path(path)
    save_file(original_tensors(pipeline), path)
    folder = path.with_suffix("")
    pipeline.save_pretrained(folder)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    return path
