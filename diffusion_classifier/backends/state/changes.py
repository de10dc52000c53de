"""What makes the networks of a pipeline another model than their configuration says.

Adapters that take effect, skipped layers, FreeU, and weights that changed in place. A pipeline to
which none of this happened has no changes, whatever its weights: they belong to its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from .adapters import Adapters
from .usable import other_settings
from .weights import WeightSample, first_seen, own_weights

Baseline = dict[str, WeightSample | None]


def weights_now(pipeline: Any, names: Iterable[str]) -> Baseline:
    """Sample the weights of a pipeline's networks, with which :func:`changes` compares later ones.

    A network that this process has seen before gets the sample of then, so making a second backend
    of a pipeline forgets no change. None stands for a network that had a fused adapter already.
    """
    return {
        name: None if _is_fused(pipeline, name, Adapters.of(network)) else first_seen(network)
        for name, network in networks(pipeline, names)
    }


def changes(pipeline: Any, names: Iterable[str], baseline: Baseline) -> dict[str, str]:
    """Describe what was done to networks of a pipeline, by name; those without changes are absent.

    Weights that changed in place, by more than rounding to another dtype, are named by a hash of
    some of their elements. It is the same in other processes, if the dtype is.
    """
    found = {}
    for name, network in networks(pipeline, names):
        adapters, weights = Adapters.of(network), WeightSample.of(own_weights(network))
        parts = [f"adapter {adapter}" for adapter in adapters.active]
        parts += other_settings(network)
        # a text encoder may have been loaded after the backend was made
        before = baseline[name] if name in baseline else first_seen(network)
        fused = _is_fused(pipeline, name, adapters)
        if fused or before is None or weights.differs(before):
            parts.append(f"weights {weights.digest()}")
        if parts:
            found[name] = ", ".join(parts)
    return found


def networks(pipeline: Any, names: Iterable[str]) -> Iterable[tuple[str, nn.Module]]:
    """Yield the networks among a pipeline's components."""
    for name in names:
        component = getattr(pipeline, name, None)
        if isinstance(component, nn.Module):
            yield name, component


def _is_fused(pipeline: Any, name: str, adapters: Adapters) -> bool:
    """Whether an adapter was fused into a network, even if the adapter was unloaded since."""
    if adapters.fused:
        return True
    loadable = getattr(pipeline, "_lora_loadable_modules", ())
    return name in loadable and bool(getattr(pipeline, "fused_loras", ()))
