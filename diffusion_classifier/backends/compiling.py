"""Compile a denoiser with torch.compile.

A compiled denoiser is fast for the batch lengths that it was compiled for, and each new length
takes it a minute or so. Batches of a compiled backend are therefore padded to a few lengths.

On an H200, a UNet of Stable Diffusion 1.5's size ran 1.4 times as fast compiled, in bfloat16 with
channels last, as uncompiled (docs/benchmarks/gpu.md). Without compilation, channels last was
slower there: most of its time went into copies between the two memory formats.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from ..errors import InputValueError
from ..utils.display import short_repr

Compile = bool | Literal["regional", "reduce-overhead", "max-autotune"]
COMPILE = (False, True, "regional", "reduce-overhead", "max-autotune")


def check_compile(compile: Any) -> None:
    """Raise an InputValueError if ``compile`` is no value of ``from_pretrained``'s parameter."""
    if not (isinstance(compile, bool) or (isinstance(compile, str) and compile in COMPILE)):
        known = ", ".join(map(repr, COMPILE))
        raise InputValueError(f"compile={short_repr(compile)} is not known; use one of {known}.")


def compile_denoiser(denoiser: Any, compile: Compile) -> None:
    """Compile a denoiser in place; its weights, and what it computes, stay the same.

    Parameters
    ----------
    denoiser : torch.nn.Module
        Network of diffusers.
    compile : bool, "regional", "reduce-overhead" or "max-autotune"
        True compiles the whole network. "regional" compiles its repeated blocks alone, which takes
        a fraction of the time and gains less. The others are modes of ``torch.compile``:
        "reduce-overhead" records CUDA graphs, which helps small batches.

    Raises
    ------
    InputValueError
        If ``compile`` has another value, or is "regional" and the network names no such blocks.
    """
    check_compile(compile)
    if compile is False:
        return
    if has_convolutions(denoiser):
        denoiser.to(memory_format=torch.channels_last)
    if compile == "regional":
        if not getattr(denoiser, "_repeated_blocks", None):
            raise InputValueError(
                f"{type(denoiser).__name__} names no repeated blocks, so compile='regional' is "
                "not possible; use compile=True."
            )
        denoiser.compile_repeated_blocks(dynamic=False)
        return
    denoiser.compile(mode=None if compile is True else compile, dynamic=False)


def is_compiled(network: torch.nn.Module) -> bool:
    """Whether a network, or any part of it, is compiled."""
    return any(
        type(part).__name__ == "OptimizedModule"
        or getattr(part, "_compiled_call_impl", None) is not None
        for part in network.modules()
    )


def has_convolutions(network: torch.nn.Module) -> bool:
    """Whether a network has convolutions of overlapping windows, as UNets do."""
    return any(
        isinstance(part, torch.nn.Conv2d) and part.kernel_size[0] > part.stride[0]
        for part in network.modules()
    )
