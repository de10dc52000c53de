"""Compute the memory that SDXL, SD3 and Flux need from their parameter counts.

Networks are built at their published sizes on torch's meta device, which allocates no memory, so
no weights are loaded. Prints the tables of docs/memory.md:

    python benchmarks/memory.py

On a CUDA GPU that can hold the largest denoiser, this also measures the peak memory of one call
with random weights:

    python benchmarks/memory.py --measure
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import diffusers
import torch
import transformers
from networks import (
    autoencoder,
    flux_transformer,
    sd3_transformer,
    sdxl_unet,
    without_quantisation,
)

from diffusion_classifier.backends import Conditioning
from diffusion_classifier.backends.families import Family
from diffusion_classifier.backends.families.mmdit import Flux, StableDiffusion3
from diffusion_classifier.backends.families.unet import StableDiffusionXL
from diffusion_classifier.race.batches import BatchSize

BYTES = 2  # per parameter in float16 or bfloat16
GIGA = 1e9


def clip_l(kind=transformers.CLIPTextModel):
    """Build the text encoder of CLIP ViT-L/14."""
    config = transformers.CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    return kind(config)


def clip_g():
    """Build the text encoder of OpenCLIP ViT-bigG/14."""
    config = transformers.CLIPTextConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        projection_dim=1280,
        hidden_act="gelu",
    )
    return transformers.CLIPTextModelWithProjection(config)


def t5_xxl():
    """Build the encoder of T5 v1.1 XXL."""
    config = transformers.T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    return transformers.T5EncoderModel(config)


@dataclass(frozen=True)
class Size:
    """A model: builders of its networks, and the shapes of one row's latent and condition."""

    family: Family
    denoiser: Callable
    autoencoder: Callable
    text_encoders: tuple[Callable, ...]
    latent: tuple[int, int, int]
    condition: dict[str, tuple[int, ...]]


def clip_l_projected():
    return clip_l(transformers.CLIPTextModelWithProjection)


def sd35_transformer():
    return sd3_transformer(n_layers=38, qk_norm="rms_norm")


SD3_MEDIUM = Size(
    StableDiffusion3(),
    sd3_transformer,
    without_quantisation,
    (clip_l_projected, clip_g, t5_xxl),
    (16, 128, 128),
    {"encoder_hidden_states": (77 + 256, 4096), "pooled_projections": (2048,)},
)
SIZES = {  # at 1024 x 1024 pixels
    "SDXL": Size(
        StableDiffusionXL(),
        sdxl_unet,
        lambda: autoencoder(4),
        (clip_l, clip_g),
        (4, 128, 128),
        {"encoder_hidden_states": (77, 2048), "text_embeds": (1280,)},
    ),
    "SD3 medium": SD3_MEDIUM,
    "SD3.5 large": replace(
        SD3_MEDIUM, denoiser=lambda: sd3_transformer(n_layers=38, qk_norm="rms_norm")
    ),
    "Flux dev": Size(
        Flux(),
        flux_transformer,
        without_quantisation,
        (clip_l, t5_xxl),
        (16, 128, 128),
        {"encoder_hidden_states": (512, 4096), "pooled_projections": (768,)},
    ),
}


def count_parameters(build):
    """Count a network's parameters without allocating them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def count(size):
    """Count the parameters of a model's parts, the rows of a batch, and the bytes of a row."""
    denoiser, vae = count_parameters(size.denoiser), count_parameters(size.autoencoder)
    text = [count_parameters(build) for build in size.text_encoders]
    n_elements = torch.Size(size.latent).numel()
    return {
        "denoiser": denoiser,
        "autoencoder": vae,
        "text": sum(text),
        "largest": max(denoiser, vae, *text),
        "rows": BatchSize.of_network("auto", torch.device("cuda"), n_elements).rows,
        "condition": BYTES * sum(map(math.prod, size.condition.values())),
        "latent": 4 * n_elements,
    }


def as_markdown(found):
    """Format two tables: parameter counts, and gigabytes in half precision."""
    lines = [
        "| model | denoiser | text encoders | autoencoder |",
        "|---|---|---|---|",
    ]
    for name, part in found.items():
        lines.append(
            f"| {name} | {part['denoiser']:,} | {part['text']:,} | {part['autoencoder']:,} |"
        )
    lines += [
        "",
        '| model | everything (`fit`) | text encoders freed (`predict`) | `offload="model"` '
        "| rows per call on CUDA | a condition | a latent |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in found.items():
        kept = BYTES * (part["denoiser"] + part["autoencoder"]) / GIGA
        everything = kept + BYTES * part["text"] / GIGA
        lines.append(
            f"| {name} | {everything:.1f} GB | {kept:.1f} GB "
            f"| {BYTES * part['largest'] / GIGA:.1f} GB | {part['rows']} "
            f"| {part['condition'] / 1e6:.2f} MB | {part['latent'] / 1e6:.2f} MB |"
        )
    return "\n".join(lines)


@torch.inference_mode()
def call_once(size, device, n_rows, dtype=torch.bfloat16):
    """Call a denoiser once with random weights; return it and its output [n_rows, C, H, W]."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            denoiser = size.denoiser().eval()
    finally:
        torch.set_default_dtype(before)
    pipeline = SimpleNamespace(
        scheduler=SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000)),
        vae_scale_factor=8,
        _prepare_latent_image_ids=diffusers.FluxPipeline._prepare_latent_image_ids,
        **{size.family.denoiser: denoiser},
    )
    like = {"device": device, "dtype": dtype}
    rows = {name: torch.zeros(n_rows, *shape, **like) for name, shape in size.condition.items()}
    z, t = torch.zeros(n_rows, *size.latent, **like), torch.full((n_rows,), 500, device=device)
    return denoiser, size.family.forward(pipeline, z, t, Conditioning(**rows))


def peak(size, n_rows):
    """Measure the peak CUDA memory of one call, in bytes; return it and the weights' share."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    denoiser, _ = call_once(size, "cuda", n_rows)
    weights = sum(parameter.nbytes for parameter in denoiser.parameters())
    return torch.cuda.max_memory_allocated(), weights


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="on a CUDA GPU, too")
    args = parser.parse_args(argv)
    if args.measure and not torch.cuda.is_available():
        parser.error("--measure needs a CUDA GPU")
    found = {name: count(size) for name, size in SIZES.items()}
    print(as_markdown(found))
    if not args.measure:
        return
    print(f"\nPeak of one call on {torch.cuda.get_device_name()}, bfloat16, random weights:\n")
    print("| model | rows | peak | of it weights |\n|---|---|---|---|")
    for name, size in SIZES.items():
        for n_rows in sorted({1, found[name]["rows"]}):
            total, weights = peak(size, n_rows)
            print(f"| {name} | {n_rows} | {total / GIGA:.2f} GB | {weights / GIGA:.2f} GB |")


if __name__ == "__main__":
    main()
