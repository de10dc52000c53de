"""Conversion of device and dtype parameters to torch objects."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import InputValueError
from .display import short_repr

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
    return resolved


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
