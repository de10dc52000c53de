r"""How many rows fit in the memory of a device: measured with small batches, then computed.

Beyond what is held already, a call with n rows takes at its peak

    m(n) = a + b n    bytes,

a for the work space of kernels, b for the activations of a row. Two sizes tell a and b. Of ``free``
bytes, nine tenths are used, as memory is cut into blocks:

    n = (0.9 free - a) / b

The network and the autoencoder never run at once, so each is measured apart. What was found is kept
as long as the network lives, together with the sizes that failed nevertheless: later predictions
neither measure nor fail again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from ..backends.base import Backend, Conditioning
from ..backends.function import FunctionBackend
from ..backends.pipeline import DiffusersBackend

_SHARE = 0.9  # of the free memory


class Meter(Protocol):
    """Tells how much memory a device has, and how much a call took."""

    def free(self) -> int:
        """Return the number of bytes that can be allocated now."""

    def start(self) -> None:
        """Start to watch a call."""

    def peak(self) -> int:
        """Return the most bytes held since ``start``, beyond those held then."""


class CudaMeter:
    """Memory of a CUDA device, as PyTorch's allocator counts it.

    Watching a call resets ``torch.cuda.max_memory_allocated``.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held = 0

    def free(self) -> int:
        """Return the bytes that nobody uses and this process may have, its idle blocks included."""
        unused, total = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        share = torch.cuda.get_per_process_memory_fraction(self.device)
        unused = min(unused, int(share * total) - reserved)
        return max(0, unused) + reserved - torch.cuda.memory_allocated(self.device)

    def start(self) -> None:
        """Start to watch a call."""
        torch.cuda.reset_peak_memory_stats(self.device)
        self._held = torch.cuda.memory_allocated(self.device)

    def peak(self) -> int:
        """Return the most bytes held since ``start``, beyond those held then."""
        return torch.cuda.max_memory_allocated(self.device) - self._held


@dataclass
class Usage:
    """What is known of the memory of one network or autoencoder.

    Attributes
    ----------
    peaks : dict of int to int
        Bytes at the peak of a call, by its number of rows.
    warm : bool
        Whether a first call was made, which is not measured.
    measured : bool
        Whether both sizes were measured, or one of them failed.
    sizes : dict
        By the largest size and whether the user set it: the size in use, those that were halved,
        failures of each in a row, and successes since.
    """

    peaks: dict[int, int] = field(default_factory=dict)
    warm: bool = False
    measured: bool = False
    sizes: dict[tuple[int, bool], tuple[int, tuple[int, ...], dict[int, int], int]] = field(
        default_factory=dict
    )


class Memory:
    """Chooses batch sizes by the memory of a device.

    Parameters
    ----------
    meter : Meter
    usage : Usage
        What is known already; added to.

    Examples
    --------
    >>> class Card:  # of 1,000 bytes; calls take 100 bytes and 10 for each row
    ...     def free(self):
    ...         return 1000
    ...     def start(self):
    ...         pass
    ...     def peak(self):
    ...         return 100 + 10 * self.rows
    >>> card, usage = Card(), Usage()
    >>> memory = Memory(card, usage)
    >>> for card.rows in memory.probes(128):
    ...     memory.start()
    ...     memory.stop(card.rows)
    >>> usage.peaks, memory.fitting(128)
    ({8: 180, 32: 420}, 80)
    """

    def __init__(self, meter: Meter, usage: Usage) -> None:
        self.usage = usage
        self._meter = meter

    @staticmethod
    def probes(rows: int) -> tuple[int, int]:
        """Return the two sizes to measure for batches of up to ``rows`` rows."""
        return max(1, rows // 16), max(1, rows // 4)

    def start(self) -> None:
        """Start to watch a call."""
        self._meter.start()

    def stop(self, rows: int) -> None:
        """Note the peak of the call with so many rows."""
        self.usage.peaks[rows] = self._meter.peak()

    def fitting(self, most: int) -> int:
        """Return how many rows fit now: at least one, and not more than ``most``."""
        peaks = sorted(self.usage.peaks.items())
        if not peaks:
            return most
        (few, least), (many, largest) = peaks[0], peaks[-1]
        per_row = (largest - least) / (many - few) if many > few else 0
        base = least - per_row * few
        if (
            per_row <= 0 or base < 0
        ):  # one size, or noise: all of the larger call is due to its rows
            per_row, base = largest / many, 0
        if per_row <= 0:
            return most
        return min(most, max(1, int((_SHARE * self._meter.free() - base) / per_row)))


_USAGES: WeakKeyDictionary[Any, dict[Hashable, Usage]] = WeakKeyDictionary()


def network_memory(
    backend: Backend, device: torch.device, shape: Sequence[int], condition: Conditioning
) -> Memory | None:
    """Return what is known of the memory of ``forward``, as :func:`memory_of` does."""
    if meter_of(device) is None:
        return None
    shapes = [(name, *tensor.shape[1:]) for name, tensor in condition.tensors.items()]
    options = str(backend.dtype), backend.compiled
    return memory_of(backend, device, "forward", *options, tuple(shape), tuple(sorted(shapes)))


def memory_of(backend: Backend, device: torch.device, *key: Hashable) -> Memory | None:
    """Return what is known of the memory of a backend's calls.

    Parameters
    ----------
    backend : Backend
    device : torch.device
    *key : hashable
        What else the memory of a call depends on: the part that is called, and shapes.

    Returns
    -------
    Memory or None
        None on a device whose memory cannot be measured, such as a CPU.
    """
    meter = meter_of(device)
    if meter is None:
        return None
    try:
        usages = _USAGES.setdefault(_network_of(backend), {})
    except TypeError:  # a callable that cannot be referred to weakly, or has no hash
        usages = {}
    return Memory(meter, usages.setdefault((str(device), *key), Usage()))


def meter_of(device: torch.device) -> Meter | None:
    """Return the meter of a device, if its memory can be measured."""
    return CudaMeter(device) if device.type == "cuda" else None


def _network_of(backend: Backend) -> Any:
    """Return the network of a backend, which outlives the backends made for it."""
    if isinstance(backend, DiffusersBackend):
        return backend.denoiser
    return backend.function if isinstance(backend, FunctionBackend) else backend
