"""Copies of a network on other devices, made once and kept as long as the network itself.

Images are encoded where the network came from, and prompts too. So only the denoiser is copied.
"""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn import Module

from ...backends.base import Backend
from ...backends.function import FunctionBackend
from ...backends.pipeline import DiffusersBackend
from ...backends.state.weights import WeightSample
from ...errors import InputTypeError, InputValueError
from ...utils.devices import same_device
from ...utils.display import short_repr
from ...utils.locks import fork_safe_lock

# Copies by network, then by device and identity, beside the state of the weights when they were
# copied: a network that was changed or trained since is copied again, and its old copies go.
_COPIES: WeakKeyDictionary[Module, dict[Any, tuple[Any, Module]]] = WeakKeyDictionary()
_COPYING = fork_safe_lock()


def copy_to(backend: Backend, device: torch.device) -> Backend:
    """Return a backend that predicts the same on another device.

    Parameters
    ----------
    backend : Backend
    device : torch.device

    Returns
    -------
    Backend
        The backend itself if it is on the device. Otherwise a copy, which only predicts: it has no
        encoders. Later calls get a copy with the same weights in memory.

    Raises
    ------
    InputTypeError
        If the backend has no network that can be copied.
    InputValueError
        If its network is offloaded, or its weights have no values.
    """
    if same_device(backend.device, device):
        return backend
    if isinstance(backend, DiffusersBackend):
        return _copy_pipeline(backend, device)
    if isinstance(backend, FunctionBackend) and isinstance(backend.function, Module):
        twin = copy.copy(backend)
        twin.function, twin.device = _copied(backend.function, backend, device), device
        return twin
    raise InputTypeError(
        f"{short_repr(backend)} computes on {str(backend.device)!r} and cannot be copied to "
        f"{str(device)!r}; pass a pipeline, or a FunctionBackend of a torch.nn.Module."
    )


def _copy_pipeline(backend: DiffusersBackend, device: torch.device) -> DiffusersBackend:
    name, denoiser = backend._family.denoiser, backend.denoiser
    pipeline = copy.copy(backend.pipeline)
    if any(hasattr(module, "_hf_hook") for module in denoiser.modules()):
        raise InputValueError(
            "a network that is offloaded cannot be copied to other devices; load it without "
            "offload, or use one device."
        )
    # Past the setter of pipelines, which would write to the configuration.
    for component, value in backend.pipeline.components.items():
        if isinstance(value, Module):
            vars(pipeline)[component] = None
    vars(pipeline)[name] = _copied(denoiser, backend, device)
    twin = copy.copy(backend)
    twin._pipeline = pipeline
    return twin


def _copied(network: Module, backend: Backend, device: torch.device) -> Module:
    key, state = (str(device), str(backend.dtype), repr(backend.identity())), _state(network)
    with _COPYING:
        copies = _COPIES.setdefault(network, {})
        for other in [other for other, (then, _) in copies.items() if then != state]:
            del copies[other]
        if key not in copies:
            # One that is on the way does not double the memory of the first device.
            memo: dict[int, Any] = {}
            for tensor in (*network.parameters(), *network.buffers()):
                moved = tensor.detach().to(device)
                memo[id(tensor)] = (
                    torch.nn.Parameter(moved, requires_grad=False)
                    if isinstance(tensor, torch.nn.Parameter)
                    else moved
                )
            copies[key] = state, copy.deepcopy(network, memo).eval()
        return copies[key][1]


def _state(network: Module) -> tuple[Any, ...]:
    """Tell whether a network changed: its weights, or a plain value that ``forward`` may read.

    PyTorch counts changes in place of weights, but not those of ``.data``.
    """
    tensors = [*network.named_parameters(), *network.named_buffers()]
    counts = [(id(one), None if one.is_inference() else one._version) for _, one in tensors]
    plain = [
        (id(module), name, value)
        for module in network.modules()
        for name, value in vars(module).items()
        if name != "training" and isinstance(value, bool | int | float | str)
    ]
    return (tuple(counts), tuple(plain), WeightSample.of(tensors).digest())
