"""Refuse networks whose output depends on more than latents, timestep and prompt.

Errors of different classes are compared, so a network must answer the same whatever it was asked
before. Caches that reuse outputs of earlier steps when images are sampled break this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import InputValueError
from .weights import walk

# Modules of diffusers.hooks whose hooks say where and in which dtype a network computes.
PLACEMENT = (
    "group_offloading",
    "layerwise_casting",
    "context_parallel",
    "tensor_parallel",
    "tensor_parallel_neuron",
)


def check_usable(name: str, network: nn.Module) -> None:
    """Raise if a network of a pipeline cannot be asked in any order.

    Parameters
    ----------
    name : str
        Name of the network in the pipeline.
    network : torch.nn.Module

    Raises
    ------
    InputValueError
        If the network reuses earlier outputs (a step cache), also needs an image (IP-Adapter), or
        is offloaded layer by layer without an accelerator.
    """
    if getattr(network, "is_cache_enabled", False):
        kind = type(getattr(network, "_cache_config", None)).__name__
        _refuse_cache(name, kind, f"pipeline.{name}.disable_cache()")
    for _, module in walk(network):
        for hook_name, hook in _hooks(module).items():
            if hook._is_stateful:
                _refuse_cache(
                    name,
                    hook_name,
                    "diffusers.hooks.HookRegistry.check_if_exists_or_initialize("
                    f"pipeline.{name}).remove_hook({hook_name!r}, recurse=True)",
                )
        if "IPAdapter" in type(module).__name__:
            raise InputValueError(
                f"the {name} has an IP-Adapter, so it also reads an image besides the prompt; "
                "call pipeline.unload_ip_adapter()."
            )
        offload = vars(module).get("_hf_hook")
        if getattr(offload, "offload", False) and _is_cpu(offload):
            raise InputValueError(
                f"the {name} is offloaded layer by layer (enable_sequential_cpu_offload), which "
                "needs an accelerator to compute on, but it would compute on the CPU; call "
                "pipeline.remove_all_hooks(), or load the pipeline again without offload."
            )


def other_settings(network: nn.Module) -> list[str]:
    """Describe what else changes a network's output: skipped layers and other hooks, FreeU."""
    found = set()
    for _, module in walk(network):
        for hook_name, hook in _hooks(module).items():
            if type(hook).__module__.rpartition(".")[2] not in PLACEMENT:
                found.add(f"hook {hook_name}")
        if "s1" in vars(module):
            freeu = [vars(module).get(name) for name in ("s1", "s2", "b1", "b2")]
            found |= set() if None in freeu else {f"FreeU {freeu}"}
    return sorted(found)


def _hooks(module: nn.Module) -> dict[str, Any]:
    registry = vars(module).get("_diffusers_hook")
    return {} if registry is None else registry.hooks


def _is_cpu(offload: Any) -> bool:
    device = offload.execution_device
    return device is not None and torch.device(device).type == "cpu"


def _refuse_cache(name: str, cache: str, advice: str) -> None:
    raise InputValueError(
        f"the {name} has a step cache ({cache}), which reuses outputs of earlier calls, so errors "
        f"would depend on what was computed before; switch it off with {advice}."
    )
