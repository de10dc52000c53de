"""Classify with a model of real size on a CPU: Stable Diffusion 1.5 with random weights.

Builds the pipeline from the configurations below (860 million parameters in the UNet, CLIP-L's text
encoder, the KL autoencoder), saves it as a folder, loads the folder by its name and classifies one
512 x 512 image: two classes, two draws. Random weights say nothing about accuracy; memory, seconds
and file formats are those of the real model. Then compares float16 with float32 on a UNet of the
size of Stable Diffusion 2. Each stage runs in a process of its own, whose peak memory is reported.
Nothing is downloaded. Needs 5 GB of disk, 16 GB of memory and about nine minutes on two busy cores:

    python benchmarks/real_size.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import string
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import diffusers
import numpy as np
import torch
from networks import LEVELS, autoencoder, sd15_unet
from PIL import Image
from report import write_page
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule, noise_errors
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import StratifiedSampler

MIB = 2**20


def peak_memory():
    """Return the peak of this process's resident memory in bytes (VmHWM of Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


class Clock:
    """Seconds and peak memory of the stages of one process."""

    def __init__(self):
        self.stages, self._start = {}, time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self.stages[name] = {"seconds": now - self._start, "peak_mib": peak_memory() / MIB}
        print(f"{name}: {self.stages[name]}", flush=True)
        self._start = time.perf_counter()


def spelling_tokenizer():
    """Make a CLIP tokenizer that spells: the published vocabulary is not needed offline."""
    letters = string.ascii_lowercase + string.digits + ",.-'"
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip_large():
    """Build the text encoder of Stable Diffusion 1.5, with its 49,408 tokens."""
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
    )
    return CLIPTextModel(config)


def save(folder):
    """Build the pipeline and save it; return the stages and the number of parameters."""
    torch.manual_seed(0)
    clock = Clock()
    pipeline = diffusers.StableDiffusionPipeline(
        unet=sd15_unet(),
        vae=autoencoder(4, sample_size=512),
        text_encoder=clip_large(),
        tokenizer=spelling_tokenizer(),
        scheduler=diffusers.PNDMScheduler(
            beta_start=LEVELS["beta_start"],
            beta_end=LEVELS["beta_end"],
            beta_schedule=LEVELS["beta_schedule"],
            steps_offset=1,
            skip_prk_steps=True,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    clock.lap("building")
    pipeline.save_pretrained(folder)
    clock.lap("saving")
    parameters = {
        name: sum(p.numel() for p in getattr(pipeline, name).parameters())
        for name in ("unet", "text_encoder", "vae")
    }
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"stages": clock.stages, "parameters": parameters, "bytes": size}


def classify(folder):
    """Load the folder by its name and classify one image by two classes and two draws."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    clock = Clock()
    clf = DiffusionClassifier(
        str(folder),
        sampler=StratifiedSampler(2),
        pruner=NoPruning(2),
        random_state=0,
        device="cpu",
        verbose=False,
    ).fit(None, ["cat", "dog"])
    clock.lap("loading")
    latents = clf.encode([image])
    clock.lap("encoding the image")
    table = clf.errors(latents)
    clock.lap("network, 4 evaluations")
    errors = np.asarray(table.errors[0], dtype=np.float64)
    if not np.isfinite(errors).all() or (errors[0] == errors[1]).any():
        raise SystemExit(f"errors must be finite and depend on the class, but are {errors}.")
    return {
        "stages": clock.stages,
        "evaluations": int(table.n_evaluations.sum()),
        "errors": errors.tolist(),
        "dtype": str(clf.backend_.dtype),
    }


def half_precision(side, n_draws):
    """Compare class gaps in float16 and float32 on a UNet of the size of Stable Diffusion 2.

    A gap is the error of one prompt less that of another on the same draw. Its error in half
    precision is relative to the root mean square of the gaps in float32.
    """
    torch.manual_seed(0)
    network = diffusers.UNet2DConditionModel(
        sample_size=96,
        attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024,
        use_linear_projection=True,
    )
    network.eval().requires_grad_(False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    schedule = NoiseSchedule.from_alphas_cumprod((1 - betas).cumprod(0))
    t = torch.arange(n_draws) * 1000 // n_draws + 500 // n_draws
    alpha, sigma = schedule.at(t)
    kind = PREDICTION_TYPES["v_prediction"]
    x, prompts = torch.randn(1, 4, side, side), torch.randn(2, 77, 1024)
    eps = torch.randn(n_draws, 4, side, side)
    a, s = (level.float().view(-1, 1, 1, 1) for level in (alpha, sigma))
    z, target = a * x + s * eps, kind.target(x, eps, a, s)
    scale = kind.scale(alpha, sigma).float()
    found, clock = {}, Clock()
    for dtype in (torch.float32, torch.float16):
        network.to(dtype)
        outputs = torch.stack(
            [
                torch.cat(
                    [
                        network(z[j : j + 1].to(dtype), t[j], prompt[None].to(dtype)).sample
                        for j in range(n_draws)
                    ]
                )
                for prompt in prompts
            ]
        )
        errors = torch.stack([noise_errors(out, target, scale, "l2") for out in outputs]).double()
        found[dtype] = errors[0] - errors[1]
        if dtype is torch.float16:  # the loss in half precision as well
            means = [(out - target.half()).square().mean((1, 2, 3)).double() for out in outputs]
            found["all"] = (means[0] - means[1]) * scale.double() ** 2 * target[0].numel()
        clock.lap(str(dtype))
    exact, half, both = found[torch.float32], found[torch.float16], found["all"]
    size = exact.square().mean().sqrt()
    return {
        "stages": clock.stages,
        "side": side,
        "n_draws": n_draws,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gap_of_error": float(size / errors.mean()),
        "worst": float((half - exact).abs().max() / size),
        "rms": float((half - exact).square().mean().sqrt() / size),
        "of_sum": float((half.sum() - exact.sum()).abs() / exact.sum().abs()),
        "rms_all_half": float((both - exact).square().mean().sqrt() / size),
        "same_signs": int((half.sign() == exact.sign()).sum()),
    }


def alone(function, *arguments):
    """Run a stage in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def page(results):
    """Write the results as Markdown."""
    saved, run = results["save"], results["classify"]
    stages = [(name, row) for part in (saved, run) for name, row in part["stages"].items()]
    numbers = saved["parameters"]
    lines = [
        "# A model of real size on a CPU",
        "",
        f"Stable Diffusion 1.5 with random weights ({numbers['unet'] / 1e6:.0f} million parameters "
        f"in the UNet, {numbers['text_encoder'] / 1e6:.0f} in the text encoder, "
        f"{numbers['vae'] / 1e6:.0f} in the autoencoder; {saved['bytes'] / 1e9:.2f} GB as a "
        "folder), saved and then loaded by `DiffusionClassifier(folder)` in another process: one "
        "512 × 512 image, two classes, two draws, four evaluations, in "
        f"{run['dtype'].removeprefix('torch.')}, on {results['threads']} threads. One run. Random "
        "weights say nothing about accuracy; memory and seconds are the real model's.",
        "",
        "| stage | seconds | peak memory of its process so far (GiB) |",
        "|---|---|---|",
        *(f"| {n} | {row['seconds']:.1f} | {row['peak_mib'] / 1024:.2f} |" for n, row in stages),
        "",
    ]
    return "\n".join(lines + (half_precision_lines(results["half"]) if "half" in results else []))


def half_precision_lines(half):
    """Write the comparison of float16 and float32 as lines of Markdown."""
    return [
        "## float16 against float32",
        "",
        f"A UNet of the size of Stable Diffusion 2 ({half['parameters'] / 1e6:.0f} million random "
        f"weights, v_prediction), latents of {half['side']} × {half['side']} because float16 is "
        f"slow on CPUs, two random prompts, {half['n_draws']} timesteps. The gap of the two "
        f"prompts' errors is {half['gap_of_error']:.1e} of an error here. Relative to the root "
        "mean square of the float32 gaps:",
        "",
        "| network | loss | root mean square error of a gap |",
        "|---|---|---|",
        f"| float16 | float32, as in this package | {half['rms']:.4f} |",
        f"| float16 | float16 | {half['rms_all_half']:.4f} |",
        "",
        f"The worst gap is off by {half['worst']:.4f}; {half['same_signs']} of {half['n_draws']} "
        f"gaps keep their sign. The sum of the gaps, which decides, is off by {half['of_sum']:.4f} "
        "of itself.",
        "",
    ]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=16, help="latents of the float16 comparison")
    parser.add_argument("--draws", type=int, default=4, help="timesteps of that comparison")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/real_size.md"))
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="sd15-random-"))
    results = {"threads": options.threads}
    try:
        results["save"] = alone(_with_threads, options.threads, save, folder)
        results["classify"] = alone(_with_threads, options.threads, classify, folder)
    finally:
        shutil.rmtree(folder)
    write(results, options.output, argv)  # kept if the next stage is interrupted
    results["half"] = alone(
        _with_threads, options.threads, half_precision, options.side, options.draws
    )
    write(results, options.output, argv)


def write(results, path, argv):
    """Write the page and, beside it, its figures as JSON."""
    write_page(path, page(results), argv)
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


def _with_threads(n_threads, function, *arguments):
    torch.set_num_threads(n_threads)
    return function(*arguments)


if __name__ == "__main__":
    main()
