"""Whether a network's weights have changed in place, from a few elements of every tensor.

Reading all weights of a large network would take seconds. PyTorch's counters of in-place changes
are no substitute, as ``parameter.data += ...``, with which adapters are fused, does not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

N_ELEMENTS = 16  # most elements that are read of a tensor
# Rounding to half precision, even to float16 and then to bfloat16, is no change: float16 has 11
# bits down to 2^-24, bfloat16 has 8.
RELATIVE_ROUNDING, SMALLEST_HALF = 2**-8 + 2**-10, 2**-24
READABLE = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int8,
    torch.uint8,
)
WRAPPERS = ("base_layer", "_orig_mod")  # of an adapter's layer, and of torch.compile


@dataclass(frozen=True, eq=False)
class WeightSample:
    """Some elements of every tensor of a network.

    Attributes
    ----------
    places : dict of str to tuple
        For each tensor, where its elements begin and end in ``elements``, and its shape.
    elements : Tensor of shape (n,), float32, on the CPU
    """

    places: dict[str, tuple[int, int, torch.Size]]
    elements: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, tensors: Iterable[tuple[str, Tensor]]) -> WeightSample:
        """Sample named tensors; those that hold no plain numbers in memory are left out."""
        groups: dict[Any, list[tuple[str, Tensor, Tensor]]] = {}
        for name, tensor in tensors:
            tensor = tensor.detach()
            if _is_plain(tensor):
                sampled = (name, tensor, _points(tensor))
                groups.setdefault((tensor.device, tensor.dtype), []).append(sampled)
        places, n = {}, 0
        for name, tensor, points in chain.from_iterable(groups.values()):
            places[name] = (n, n + points.numel(), tensor.shape)
            n += points.numel()
        # one transfer per device and dtype rather than one per tensor
        parts = [
            torch.cat([points for _, _, points in group]).float().cpu() for group in groups.values()
        ]
        return cls(places, torch.cat(parts) if parts else torch.empty(0))

    def differs(self, other: WeightSample) -> bool:
        """Whether any tensor of the same name and shape has changed by more than rounding."""
        mine, others = self.elements, other.elements
        if self.places != other.places:
            common = [
                (mine[start:stop], others[slice(*other.places[name][:2])])
                for name, (start, stop, shape) in self.places.items()
                if name in other.places and other.places[name][2] == shape
            ]
            if not common:
                return False
            mine, others = (torch.cat(parts) for parts in zip(*common, strict=True))
        close = torch.isclose(
            mine, others, rtol=RELATIVE_ROUNDING, atol=SMALLEST_HALF, equal_nan=True
        )
        return not bool(close.all())

    def digest(self) -> str:
        """Return a short hash of names, shapes and elements."""
        shapes = sorted((name, *shape) for name, (_, _, shape) in self.places.items())
        content = hashlib.sha256(repr(shapes).encode())
        for name in sorted(self.places):
            content.update(self.elements[slice(*self.places[name][:2])].numpy().tobytes())
        return content.hexdigest()[:12]


_FIRST_SEEN: WeakKeyDictionary[nn.Module, WeightSample] = WeakKeyDictionary()


def first_seen(network: nn.Module) -> WeightSample:
    """Return a sample of a network's own weights when this process first asked for one."""
    network = network._modules.get("_orig_mod") or network
    if network not in _FIRST_SEEN:
        _FIRST_SEEN[network] = WeightSample.of(own_weights(network))
    return _FIRST_SEEN[network]


def own_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a network's parameters without those of its adapters, by the names without adapters."""
    left = [("", network)]
    while left:
        path, module = left.pop()
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield path + name, parameter
        modules = module._modules
        wrapped = [part for name in WRAPPERS if (part := modules.get(name)) is not None]
        if wrapped:
            left.append((path, wrapped[0]))
        else:
            left += [
                (f"{path}{name}.", child)
                for name, child in reversed(modules.items())
                if child is not None
            ]


def walk(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return all modules of a network and their names, as ``named_modules`` but faster.

    A network is walked at every prediction, to see whether it changed.
    """
    found: dict[nn.Module, str] = {}
    left = [("", network)]
    while left:
        path, module = left.pop()
        if module not in found:
            found[module] = path
            start = path + "." if path else ""
            left += [
                (start + name, child)
                for name, child in reversed(module._modules.items())
                if child is not None
            ]
    return [(path, module) for module, path in found.items()]


def _is_plain(tensor: Tensor) -> bool:
    """Whether elements can be read: not on the meta device, not quantised by a tensor class."""
    plain = type(tensor) is Tensor and tensor.layout is torch.strided
    return plain and not tensor.is_meta and tensor.dtype in READABLE


def _points(tensor: Tensor) -> Tensor:
    """Return elements at equal distances along the diagonal of a tensor, as a view where it can.

    They do not depend on the memory format.
    """
    shape = tensor.shape
    if tensor.numel() <= N_ELEMENTS:
        return tensor.reshape(-1)
    n = min(N_ELEMENTS, max(shape))
    step = 0
    for size, stride in zip(shape, tensor.stride(), strict=True):
        step += stride * ((size - 1) // max(n - 1, 1))
    return tensor.as_strided((n,), (step,))
