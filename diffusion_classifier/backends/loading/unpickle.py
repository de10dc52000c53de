"""Rewrite pickled weights as safetensors: the script of a process of its own.

``convert.py`` runs this file with a JSON list of [source, target] on stdin and reads one JSON
object from stdout. It imports nothing of this package. ``torch.load(weights_only=True)`` builds
tensors and plain containers alone; whatever it lets through ends with the process.

Tensors that share memory, such as tied weights, are written once under each name, as readers look
each name up. Every byte to be written is counted before: a view can be larger than its memory.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

PICKLE = b"\x80"  # how pickles of protocol 2 and later begin
METADATA = "__metadata__"
NESTED = "state_dict"  # where training scripts keep the weights, beside other state
LONGEST = 300
SCRIPT = "TorchScript"  # what torch says of its archives
NO_MEMORY = ("allocate memory", "not enough memory")  # how a RuntimeError of torch says it


class Refused(Exception):
    """A file that is not converted. ``args`` are the reason's name and its sentence."""


def main() -> None:
    """Convert what stdin lists, and say on stdout how it went."""
    written = {}
    try:
        for source, target in json.load(sys.stdin):
            written[target] = convert(Path(source), Path(target))
        answer: dict[str, Any] = {"written": written}
    except Refused as error:
        answer = {"reason": error.args[0], "message": error.args[1]}
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        size = Path(source).stat().st_size
        message = f"{source} does not fit in memory: the file has {size:,} bytes"
        answer = {"reason": "memory", "message": message}
    json.dump(answer, sys.stdout)


def convert(source: Path, target: Path) -> list[str]:
    """Write the tensors of one file, read them again, and return their names."""
    tensors = tensors_of(load(source), source)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if (free := shutil.disk_usage(target.parent).free) < needed:
        raise Refused(
            "write",
            f"the tensors of {source} take {needed:,} bytes, as tied and expanded ones are "
            f"written in full, and {target.parent} has {free:,} left",
        )
    tensors = separate(tensors)
    try:
        save_file(tensors, target, metadata={"format": "pt"})
        compare(tensors, target)
    except (OSError, SafetensorError) as error:
        raise Refused("write", f"{target.name} cannot be written ({said(error)})") from error
    return sorted(tensors)


def load(source: Path) -> Any:
    """Load a checkpoint without running any code that it names."""
    zipped = zipfile.is_zipfile(source)
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        if lacks_memory(error):
            raise
        if SCRIPT in str(error):
            raise Refused("script", f"{source} is a TorchScript archive, a program") from error
        with source.open("rb") as file:
            pickled = zipped or file.read(1) == PICKLE
        if pickled and isinstance(error, pickle.UnpicklingError):
            raise Refused(
                "unsafe",
                f"{source} holds more than tensors, which could run code when loaded "
                f"({wanted(str(error))})",
            ) from error
        raise Refused(
            "format", f"{source} is not a whole checkpoint of torch.save ({said(error)})"
        ) from error


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(part in text for part in NO_MEMORY)


def wanted(message: str) -> str:
    """Return what torch says of the object that it refused, without its advice to allow it."""
    lines = [line for line in message.splitlines() if "unsupported" in line.lower()]
    found = (lines or message.splitlines()[:1] or [""])[0].split(" was not ")[0]
    return found.removeprefix("WeightsUnpickler error: ").strip().rstrip(".")[:LONGEST]


def tensors_of(loaded: Any, source: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name, of a mapping or of the one under ``state_dict`` in it."""
    if isinstance(loaded, Mapping) and isinstance(loaded.get(NESTED), Mapping):
        loaded = loaded[NESTED]
    if not isinstance(loaded, Mapping):
        raise Refused("format", f"{source} holds no tensors by name, but {type(loaded).__name__}")
    if not loaded:
        raise Refused("empty", f"{source} holds a mapping without tensors")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise Refused(
                "format",
                f"{source} holds {type(value).__name__} under {str(name)[:80]!r}, not a tensor",
            )
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise Refused(
                "format", f"{source}: tensor {name[:80]!r} is sparse, quantized or without values"
            )
        if name == METADATA:
            raise Refused("name", f"{source} has a tensor named {name!r}, a word of safetensors")
        if value.is_complex() and value.dtype != torch.complex64:
            raise Refused("dtype", f"{source}: tensor {name[:80]!r} is {value.dtype}")
    return {name: value.detach().resolve_conj().resolve_neg() for name, value in loaded.items()}


def separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors that share memory or are not in one piece, as safetensors wants them."""
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        if users[tensor.untyped_storage().data_ptr()] > 1
        else tensor.contiguous()
        for name, tensor in tensors.items()
    }


def compare(tensors: dict[str, torch.Tensor], target: Path) -> None:
    """Raise an error unless a file holds these tensors: names, shapes, dtypes and every byte."""
    with safe_open(target, framework="pt") as file:
        if set(file.keys()) != set(tensors):
            raise OSError("other names were read back than written")
        for name, tensor in tensors.items():
            read = file.get_tensor(name)
            if (read.shape, read.dtype) != (tensor.shape, tensor.dtype):
                raise OSError(f"{name} was read back with another shape or dtype")
            if not torch.equal(*(part.reshape(-1).view(torch.uint8) for part in (read, tensor))):
                raise OSError(f"{name} was read back with other values")


def said(error: Exception) -> str:
    """Return an error's message, short and on one line."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__


if __name__ == "__main__":
    main()
