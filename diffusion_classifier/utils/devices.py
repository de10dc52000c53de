"""Conversion of device and dtype parameters to torch objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InputValueError
from .display import short_repr

Devices = str | int | torch.device | Sequence[str | int | torch.device]

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def resolve_device(device: Any) -> torch.device:
    """Return the torch device; ``"auto"`` chooses CUDA, else MPS, else the CPU.

    Raises
    ------
    InputValueError
        If the name is not a device, or the device is not available.
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if isinstance(device, bool):  # torch would take True for device 1
            raise TypeError
        resolved = torch.device(device)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise InputValueError(
            f'device={short_repr(device)} is not known; use "auto", "cuda", "cuda:0", "mps" or '
            '"cpu".'
        ) from error
    if (resolved.type == "cuda" and not torch.cuda.is_available()) or (
        resolved.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputValueError(f'device={device!r} is not available; use "auto" or "cpu".')
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise InputValueError(
            f"device={device!r} does not exist; CUDA has {torch.cuda.device_count()} devices, "
            "counted from 0."
        )
    return resolved


def resolve_devices(device: Any) -> tuple[torch.device, ...]:
    """Return the devices of one device or of a list of them, without repetitions on a GPU.

    Raises
    ------
    InputValueError
        If the list is empty, one of them is not available, or a GPU is named twice.
    """
    if not isinstance(device, list | tuple):
        return (resolve_device(device),)
    if not device:
        raise InputValueError('device=[] names no device; use "auto", or such as ["cuda:0"].')
    found: list[torch.device] = []
    for i, name in enumerate(device):
        try:
            is_index = isinstance(name, int) and not isinstance(name, bool)
            resolved = resolve_device(f"cuda:{name}" if is_index else name)
        except InputValueError as error:
            raise InputValueError(f"device[{i}]: {error}") from error
        twin = next((j for j, other in enumerate(found) if same_device(other, resolved)), None)
        if twin is not None and resolved.type != "cpu":
            raise InputValueError(
                f"device[{twin}]={device[twin]!r} and device[{i}]={name!r} are the same device; "
                "name each once."
            )
        found.append(resolved)
    return tuple(found)


def devices_of_list(device: Any) -> tuple[torch.device, ...]:
    """Return the devices of a list; none for a single device, which ``fit`` has chosen."""
    return resolve_devices(device) if isinstance(device, list | tuple) else ()


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are the same; without an index, a GPU is the current one."""
    return one.type == other.type and (one.type == "cpu" or _index(one) == _index(other))


def _index(device: torch.device) -> int:
    if device.index is not None:
        return device.index
    return torch.cuda.current_device() if device.type == "cuda" else 0


def resolve_dtype(dtype: Any, device: torch.device) -> torch.dtype:
    """Return the torch dtype; ``"auto"`` chooses float16 on CUDA and float32 elsewhere.

    Raises
    ------
    InputValueError
        If ``dtype`` is not a supported floating-point dtype.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    for name, known in DTYPES.items():
        if dtype is known or (isinstance(dtype, str) and dtype == name):
            return known
    raise InputValueError(
        f'dtype={short_repr(dtype)} is not known; use "auto" or one of {", ".join(DTYPES)}.'
    )
