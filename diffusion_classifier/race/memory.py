r"""How many rows fit in the memory of a device: measured with small batches, then computed.

Beyond what is held already, a call with n rows takes at its peak

    m(n) = a + b n    bytes,

a for the work space of kernels, b for the activations of a row. Two sizes tell a and b. Of ``free``
bytes, nine tenths are used, as memory is cut into blocks:

    n = (0.9 free - a) / b

The network and the autoencoder never run at once, so each is measured apart. What was found is kept
as long as the network lives, together with the sizes that failed nevertheless: later predictions
neither measure nor fail again. It is measured anew when something changes what a call takes, such
as tiles of the autoencoder, attention processors, offloading or adapters.

Peaks are those of a whole device. Hence one thread at a time measures on it, while calls of others
go on unmeasured; a peak during which another call ran is not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch

from ..backends.base import Backend, Conditioning
from ..backends.function import FunctionBackend
from ..backends.pipeline import DiffusersBackend
from ..utils.locks import fork_safe_lock

Output = TypeVar("Output")

_SHARE = 0.9  # of the free memory
_MOST_DISTURBED = 8


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


class Traffic:
    """Calls on a device, of all threads.

    Attributes
    ----------
    measuring : Lock
        Held by the thread that measures.
    """

    def __init__(self) -> None:
        self.measuring = Lock()
        self._lock = Lock()
        self._n_begun = self._n_running = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call."""
        with self._lock:
            self._n_begun += 1
            self._n_running += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_running -= 1

    def calls(self) -> tuple[int, bool]:
        """Return how many calls have begun so far, and whether more than one runs."""
        with self._lock:
            return self._n_begun, self._n_running > 1


@dataclass
class Usage:
    """What is known of the memory of one network or autoencoder.

    Attributes
    ----------
    peaks : dict of int to int
        Bytes at the peak of a call, by its number of rows.
    disturbed : int
        Number of peaks that were not kept, because another call ran.
    warm : bool
        Whether a first call was made, which is not measured.
    measured : bool
        Whether both sizes were measured, or one of them failed.
    sizes : dict
        By the largest size and whether the user set it: the size in use, those that were halved,
        failures of each in a row, and successes since.
    """

    peaks: dict[int, int] = field(default_factory=dict)
    disturbed: int = 0
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
    traffic : Traffic, optional
        Calls of other threads on the device; none by default.

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
    ...     _ = memory.measure(lambda: card.rows, length_of=int)
    >>> usage.peaks, memory.fitting(128)
    ({8: 180, 32: 420}, 80)
    """

    def __init__(self, meter: Meter, usage: Usage, traffic: Traffic | None = None) -> None:
        self.usage = usage
        self._meter = meter
        self._traffic = Traffic() if traffic is None else traffic
        self.call = self._traffic.call

    @staticmethod
    def probes(rows: int) -> tuple[int, int]:
        """Return the two sizes to measure for batches of up to ``rows`` rows."""
        return max(1, rows // 16), max(1, rows // 4)

    def measure(
        self, call: Callable[[], Output], length_of: Callable[[Output], int]
    ) -> tuple[Output, int | None]:
        """Run a call and note its peak, unless calls of other threads disturb it.

        Parameters
        ----------
        call : callable
        length_of : callable
            Returns the number of rows of an output.

        Returns
        -------
        output : object
        length : int or None
            Number of rows; None if no peak was noted.
        """
        if not self._traffic.measuring.acquire(blocking=False):
            return call(), None  # another thread measures, and would see its peak reset
        try:
            before, shared = self._traffic.calls()
            self._meter.start()
            output = call()
            peak, disturbed = self._meter.peak(), shared or self._traffic.calls()[0] != before
        finally:
            self._traffic.measuring.release()
        if disturbed and self.usage.disturbed < _MOST_DISTURBED:
            self.usage.disturbed += 1
            return output, None
        # A device that is never left alone is measured as it is.
        length = length_of(output)
        self.usage.peaks[length] = peak
        return output, length

    def fitting(self, most: int) -> int:
        """Return how many rows fit now: at least one, and not more than ``most``."""
        peaks = sorted(self.usage.peaks.copy().items())  # other threads may add to them
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
_TRAFFIC: dict[str, Traffic] = {}
_LOOKING = fork_safe_lock()


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
        What else the memory of a call depends on: the part that is called, and shapes. Settings of
        the modules are added, see :func:`settings_of`.

    Returns
    -------
    Memory or None
        None on a device whose memory cannot be measured, such as a CPU.
    """
    meter = meter_of(device)
    if meter is None:
        return None
    network, encoder = _modules_of(backend)
    key = (str(device), *key, settings_of(network), settings_of(encoder))
    with _LOOKING:
        try:
            usages = _USAGES.setdefault(network, {})
        except TypeError:  # a callable that cannot be referred to weakly, or has no hash
            usages = {}
        traffic = _TRAFFIC.setdefault(str(device), Traffic())
        return Memory(meter, usages.setdefault(key, Usage()), traffic)


def meter_of(device: torch.device) -> Meter | None:
    """Return the meter of a device, if its memory can be measured."""
    return CudaMeter(device) if device.type == "cuda" else None


_OF_ADAPTERS = ("_active_adapter", "merged_adapters")


def settings_of(network: Any) -> Hashable:
    """Return what can be switched in a network and changes the memory of a call.

    These are the classes of its modules (an adapter adds some), their attention processors with
    the numbers these hold, hooks of offloading, switches such as ``use_slicing``, and sizes of
    tiles and chunks. Counts of a module's own are no part of it.

    Examples
    --------
    >>> network = torch.nn.Linear(2, 2)
    >>> before = settings_of(network)
    >>> network.use_tiling = True
    >>> settings_of(network) == before
    False
    """
    if not isinstance(network, torch.nn.Module):
        return None
    found: Counter[Hashable] = Counter()
    for module in network.modules():
        inside = vars(module)
        processor = inside.get("processor")
        hooks = inside.get("_hf_hook"), inside.get("_diffusers_hook")
        found[
            type(module).__qualname__,
            type(processor).__qualname__,
            _plain(getattr(processor, "__dict__", {}), bool | int | float | str),
            tuple(type(hook).__qualname__ for hook in hooks),
            tuple(getattr(hooks[1], "hooks", ())),  # their names
            tuple(str(inside.get(name)) for name in _OF_ADAPTERS),
            _plain(inside, bool),
            tuple((name, inside[name]) for name in sorted(inside) if _is_size(name, inside[name])),
        ] += 1
    return frozenset(found.items())


def _plain(values: Mapping[str, Any], kinds: Any) -> tuple[tuple[str, Any], ...]:
    """Return names and values of some kinds."""
    return tuple((name, values[name]) for name in sorted(values) if isinstance(values[name], kinds))


def _is_size(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and ("tile" in name or "chunk" in name)


def _modules_of(backend: Backend) -> tuple[Any, Any]:
    """Return the network of a backend, which outlives the backends made for it, and its encoder."""
    if isinstance(backend, DiffusersBackend):
        return backend.denoiser, getattr(backend.pipeline, "vae", None)
    if isinstance(backend, FunctionBackend):
        return backend.function, backend.encode
    return backend, None
