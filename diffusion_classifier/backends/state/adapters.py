"""Adapters (LoRA and such) that take effect in a network: names, scales and weights.

The ``peft`` package wraps the layers that an adapter changes. Such a layer keeps the original as
``base_layer`` and holds, by the adapter's name, weights and a scale. An adapter that is off, or
whose scale is 0, has no effect. The weights of a fused adapter are in the original's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from .weights import WeightSample, walk


class Adapters(NamedTuple):
    """Adapters of a network.

    Attributes
    ----------
    active : list of str
        Name, scale and hash (of weights and scales) of each adapter that takes effect.
    fused : bool
        Whether an adapter is fused into the network's own weights and can be taken out again.
    """

    active: list[str]
    fused: bool

    @classmethod
    def of(cls, network: nn.Module) -> Adapters:
        """Find the adapters of a network."""
        layers: dict[str, Any] = {
            path: module
            for path, module in walk(network)
            if "base_layer" in module._modules and hasattr(module, "adapter_layer_names")
        }
        if not layers:  # diffusers keeps the names of other kinds of adapters here
            return cls(sorted(getattr(network, "peft_config", None) or ()), False)
        names = {name for layer in layers.values() for name in _active(layer)}
        fused = any(layer.merged_adapters for layer in layers.values())
        return cls([_describe(name, layers) for name in sorted(names)], fused)


def _active(layer: Any) -> list[str]:
    """Names of the adapters that change a layer's output."""
    if layer.disable_adapters or layer.merged_adapters:
        return []
    known = {name for kind in layer.adapter_layer_names for name in getattr(layer, kind, ())}
    return [name for name in layer.active_adapters if name in known and _scale(layer, name) != 0]


def _scale(layer: Any, name: str) -> float:
    return float(getattr(layer, "scaling", {}).get(name, 1.0))


def _describe(name: str, layers: dict[str, Any]) -> str:
    active = {path: layer for path, layer in layers.items() if name in _active(layer)}
    scales = {path: f"{_scale(layer, name):.6g}" for path, layer in active.items()}
    weights = WeightSample.of(
        item for path, layer in active.items() for item in _weights(layer, name, path)
    )
    digest = hashlib.sha256(f"{sorted(scales.items())} {weights.digest()}".encode())
    values = sorted(set(scales.values()), key=float)
    scale = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"{name} at scale {scale} ({digest.hexdigest()[:12]})"


def _weights(layer: Any, name: str, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield an adapter's parameters in one layer."""
    for kind in layer.adapter_layer_names:
        held = getattr(layer, kind, {})
        if name not in held:
            continue
        part = held[name]
        parameters = part.named_parameters() if isinstance(part, nn.Module) else [("", part)]
        for suffix, parameter in parameters:
            yield f"{path}.{kind}.{suffix}", parameter
