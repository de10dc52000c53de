"""Measure races at the sizes of published models, with random weights, on a CUDA device.

Every rate is also given as a share of what a large matrix product reaches in the same run; the
operations of a row are counted. Needs no download. On a GPU of 24 GB or more (40 GB for Flux) this
takes about seven minutes and writes docs/benchmarks/gpu.md and gpu.json:

    python benchmarks/gpu.py

The same code at an eighth of the width runs on a CPU in a minute; it writes nothing but the JSON:

    python benchmarks/gpu.py --width 8 --json build/gpu.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from gpu_page import as_page
from networks import MODELS, make_backend
from report import write_page
from torch.utils.flop_counter import FlopCounterMode

from diffusion_classifier import DiffusionClassifier, Latents
from diffusion_classifier.noise import PREDICTION_TYPES
from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.race.batches import BatchSize

LABELS = [f"class {k}" for k in range(10)]
RACES = {"SD1.5": (64, 8), "SDXL": (16, 4), "SD3 medium": (8, 4), "Flux dev": (4, 2)}  # N, draws
COMPILED = {"SD1.5": True, "SDXL": "regional", "SD3 medium": True, "Flux dev": "regional"}
LOOP_BATCH = 32  # of the published script


@dataclass
class Machine:
    """The device, and how to measure time on it."""

    device: torch.device

    @property
    def is_cuda(self):
        return self.device.type == "cuda"

    def wait(self):
        if self.is_cuda:
            torch.cuda.synchronize()

    def seconds(self, call, repeats=5, warm=2):
        """Return the median time of a call."""
        for _ in range(warm):
            call()
        times = []
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def matrix_product(self, dtype):
        """Return the TFLOP/s of a large product of random matrices."""
        n = 8192 if self.is_cuda else 512
        a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
        return 2 * n**3 / self.seconds(lambda: a @ b, 10) / 1e12

    def reset_peak(self):
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self):
        """Return the peak of allocated memory in GB, 0 if it is not a CUDA device."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.is_cuda else 0.0


class Calls:
    """What a backend's ``forward`` was called for: rows, calls and time inside it."""

    def __init__(self, backend, machine):
        self.rows, self.calls, self.marks, self.machine = 0, 0, [], machine
        self.forward, self.backend = backend.forward, backend

    def __enter__(self):
        def forward(z, t, condition):
            self.rows, self.calls = self.rows + len(z), self.calls + 1
            self.marks.append(self._mark())
            output = self.forward(z, t, condition)
            self.marks.append(self._mark())
            return output

        self.backend.forward = forward
        return self

    def __exit__(self, *raised):
        del self.backend.forward

    def _mark(self):
        if not self.machine.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self):
        """Return the time between the marks around every call."""
        self.machine.wait()
        pairs = zip(self.marks[::2], self.marks[1::2], strict=True)
        if self.machine.is_cuda:
            return sum(start.elapsed_time(end) for start, end in pairs) / 1e3
        return sum(end - start for start, end in pairs)


@dataclass
class Case:
    """A model on the device."""

    name: str
    backend: Any
    width: int
    machine: Machine

    @property
    def denoiser(self):
        pipeline = self.backend.pipeline
        return getattr(pipeline, "unet", None) or pipeline.transformer

    @property
    def shape(self):
        return MODELS[self.name].latent_shape(self.width)

    @property
    def full(self):
        """Rows of a full batch."""
        n_elements = int(np.prod(self.shape))
        return BatchSize.of_network("auto", self.machine.device, n_elements).rows

    def inputs(self, rows):
        z = torch.randn(rows, *self.shape, device=self.machine.device)
        t = torch.randint(1000, (rows,), device=self.machine.device)
        return z, t, self.backend.encode_classes(LABELS, LABELS)[torch.arange(rows) % 10]

    def flops(self):
        """Count the floating-point operations of one row."""
        with FlopCounterMode(display=False) as counter:
            self.backend.forward(*self.inputs(1))
        return counter.get_total_flops()

    def rate(self, rows, repeats=5):
        """Return the rows per second of bare calls of the denoiser."""
        inputs = self.inputs(rows)
        return rows / self.machine.seconds(lambda: self.backend.forward(*inputs), repeats)

    def classifier(self, max_draws):
        pruner = RacingPruner(max_draws=max_draws)
        clf = DiffusionClassifier(self.backend, pruner=pruner, random_state=0, verbose=0)
        return clf.fit(None, LABELS)

    def latents(self, clf, n):
        side = 8 * self.shape[-1]
        one = clf.encode(np.full((1, side, side, 3), 128, np.uint8))
        values = torch.randn(n, *self.shape, generator=torch.Generator().manual_seed(0))
        return Latents(values, one.made_by)

    def race(self, n_images, max_draws):
        """Race images, and return rates and shares."""
        clf = self.classifier(max_draws)
        X = self.latents(clf, n_images)
        clf.predict(X[: max(1, n_images // 8)])  # warm
        self.machine.reset_peak()
        with Calls(clf.backend_, self.machine) as calls:
            self.machine.wait()
            start = time.perf_counter()
            clf.predict(X)
            self.machine.wait()
            wall = time.perf_counter() - start
        return {
            "images": n_images,
            "rows": calls.rows,
            "rate": calls.rows / wall,
            "wall": wall,
            "in-net": wall / calls.seconds(),
            "occupancy": calls.rows / (calls.calls * self.full),
            "peak": self.machine.peak(),
        }

    def research_loop(self, n_images, draws):
        """Score every class on every draw as published scripts do, one image after the other."""
        schedule, kind = self.backend.schedule, PREDICTION_TYPES[self.backend.prediction_type]
        condition = self.backend.encode_classes(LABELS, LABELS)
        x = torch.randn(n_images, *self.shape, device=self.machine.device)
        noise = torch.randn(draws, *self.shape)
        timesteps = torch.linspace(0, 999, draws).long()
        rows = [(j, k) for j in range(draws) for k in range(len(LABELS))]
        start = time.perf_counter()
        for image in x:
            errors = torch.zeros(len(rows))
            for first in range(0, len(rows), LOOP_BATCH):
                part = rows[first : first + LOOP_BATCH]
                j = torch.tensor([j for j, _ in part])
                k = torch.tensor([k for _, k in part], device=self.machine.device)
                alpha, sigma = (a.view(-1, 1, 1, 1) for a in schedule.at(timesteps[j]))
                alpha, sigma = alpha.float().to(x.device), sigma.float().to(x.device)
                eps = noise[j].to(x.device)
                z = (alpha * image + sigma * eps).to(self.backend.dtype)
                output = self.backend.forward(z, timesteps[j].to(x.device), condition[k])
                target = kind.target(image.expand_as(eps), eps, alpha, sigma)
                part_errors = (output.float() - target).square().flatten(1).sum(1)
                errors[first : first + len(part)] = part_errors.cpu()
        self.machine.wait()
        return n_images * len(rows) / (time.perf_counter() - start)


def gap_error(case, dtypes):
    """Measure how far dtypes are from float32, relative to differences between classes."""
    z, t, condition = case.inputs(10)
    z, t = z[:1].expand_as(z).contiguous(), torch.full_like(t, 500)
    condition = case.backend.encode_classes(LABELS, LABELS)
    outputs, before = {}, case.denoiser.dtype
    for name, (dtype, tf32) in dtypes.items():
        case.denoiser.to(dtype)
        with allowing_tf32(tf32):
            like = {key: value.to(dtype) for key, value in condition.tensors.items()}
            output = case.backend.forward(z.to(dtype), t, type(condition)(**like)).float()
        errors = (output - z).square().flatten(1).sum(1).double()
        outputs[name] = errors - errors.mean()
    case.denoiser.to(before)
    exact = outputs.pop("float32")
    return {n: ((o - exact).norm() / exact.norm()).item() for n, o in outputs.items()}


@contextmanager
def allowing_tf32(allowed):
    """Allow or forbid TensorFloat-32 in matrix products and convolutions."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = allowed
    try:
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value


def switches(case):
    """Measure the denoiser with each switch alone, in rows per second of a full batch."""
    found, full = {}, case.full
    found["bfloat16"] = case.rate(full)
    case.denoiser.to(torch.float16)
    found["float16"] = case.rate(full)
    case.denoiser.to(torch.bfloat16)
    if case.name in ("SD1.5", "SDXL"):
        case.denoiser.to(memory_format=torch.channels_last)
        found["channels last"] = case.rate(full)
        case.denoiser.to(memory_format=torch.contiguous_format)
    if case.name == "SD1.5":
        for rows in (full // 8, full // 4, 2 * full):
            found[f"{rows} rows"] = case.rate(rows)
        case.denoiser.to(torch.float32)
        for name, allowed in (("float32", False), ("float32, TF32", True)):
            with allowing_tf32(allowed):
                found[name] = case.rate(full, 2)
        case.denoiser.to(torch.bfloat16)
    return found


def noise_seconds(case):
    """Return the time in which the host draws one draw's noise."""
    generator = torch.Generator()
    return Machine(torch.device("cpu")).seconds(
        lambda: torch.randn(case.shape, generator=generator)
    )


def measure(name, machine, width, compiled):
    """Measure everything about one model."""
    machine.reset_peak()
    dtype = torch.bfloat16 if machine.is_cuda else torch.float32
    case = Case(name, make_backend(MODELS[name], machine.device, dtype, width), width, machine)
    n_images, draws = RACES[name]
    if not machine.is_cuda:
        n_images, draws = 2, 4
    flops = case.flops()
    result = {"flops": flops, "full": case.full, "product": machine.matrix_product(dtype)}
    result["noise"] = noise_seconds(case)
    result["race"] = case.race(n_images, draws)
    result["bare"] = case.rate(case.full)
    result["switches"] = switches(case) if machine.is_cuda else {}
    if name == "SD1.5":
        result["loop"] = case.research_loop(max(2, n_images // 8), draws)
    if name in ("SD1.5", "SD3 medium") and machine.is_cuda:
        kinds = {
            "float32": (torch.float32, False),
            "float32, TF32": (torch.float32, True),
            "float16": (torch.float16, False),
            "bfloat16": (torch.bfloat16, False),
        }
        result["gap_error"] = gap_error(case, kinds)
    if compiled:
        result["compiled"] = measure_compiled(case, n_images, draws)
    return result


def measure_compiled(case, n_images, draws):
    """Compile the denoiser, and race again."""
    start = time.perf_counter()
    case.backend.compile(COMPILED[case.name])
    rate = case.rate(case.full)
    ready = time.perf_counter() - start
    race = case.race(n_images, draws)
    return {"mode": str(COMPILED[case.name]), "bare": rate, "seconds": ready, "race": race}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--width", type=int, choices=(1, 8), default=1, help="divides the width")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("docs/benchmarks/gpu.json"))
    args = parser.parse_args(argv)
    machine = Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if args.width == 1 and not machine.is_cuda:
        parser.error("the published sizes need a CUDA device; elsewhere, give --width 8")
    diffusers.utils.logging.set_verbosity_error()
    found = {}
    with torch.inference_mode():
        for name in args.models:
            start = time.perf_counter()
            compiled = machine.is_cuda and not args.no_compile
            found[name] = measure(name, machine, args.width, compiled)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    device = torch.cuda.get_device_name() if machine.is_cuda else "CPU"
    text = as_page(device, found, LOOP_BATCH)
    if args.width == 1:
        write_page(args.json.with_suffix(".md"), text, argv if argv is not None else sys.argv[1:])
    else:
        print(text)


if __name__ == "__main__":
    main()
