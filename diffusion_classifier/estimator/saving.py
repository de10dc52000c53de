"""Saving of fitted classifiers to a folder, without the network (the *backbone*).

    classifier.json       parameters, strategies, classes, prompts, the backbone's identity
    tensors.safetensors   prompt embeddings, weights w(t) and all other arrays

Loading runs no code from the folder (see :mod:`diffusion_classifier.estimator.saved_values`). A
sha256 of each file detects edits and damage, but does not prove who wrote the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..backends.base import Backend, Conditioning
from ..backends.resolve import rebuild_backend, resolve_backend
from ..errors import FolderInUseError, InputValueError, MissingFileError, NotAFolderError
from .saved_values import decode, decode_all, encode, encode_all, is_kept, learned_attributes

FORMAT = "diffusion_classifier"
FORMAT_VERSION = 1
STATE_FILE = "classifier.json"
TENSOR_FILE = "tensors.safetensors"
PLACE = ("name", "revision", "subfolder")  # parts of an identity that say where a backbone is
UNDERSCORED = ("_condition", "_scoring")  # private fitted attributes that are saved too


class SavedClassifier(NamedTuple):
    """A classifier's state as read from a folder.

    Attributes
    ----------
    parameters : dict
        Constructor parameters.
    fitted : dict
        Fitted attributes.
    """

    parameters: dict[str, Any]
    fitted: dict[str, Any]


def write_classifier(
    folder: str | os.PathLike[str], parameters: Mapping[str, Any], attributes: Mapping[str, Any]
) -> None:
    """Write a fitted classifier to a folder.

    Parameters
    ----------
    folder : str or path-like
    parameters : mapping
        Constructor parameters.
    attributes : mapping
        All attributes; only those set by ``fit`` are saved.

    Raises
    ------
    FolderInUseError, NotAFolderError
        If the folder holds other files than an earlier save, or is a file.
    InputTypeError
        If a parameter is an instance of a class from outside this package.
    """
    from safetensors.torch import save as to_bytes

    tensors: dict[str, Tensor] = {}
    backend: Backend = attributes["backend_"]
    fitted = learned_attributes(attributes) | {name: attributes[name] for name in UNDERSCORED}
    del fitted["backend_"]
    kept = {name: value for name, value in parameters.items() if name != "backend"}
    if isinstance(kept["random_state"], np.random.RandomState):
        kept["random_state"] = None  # its state has changed since fit; seed_ is saved instead
    state = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "backbone": backend.identity(),
        "backbone_dtype": str(backend.dtype),
        "backend": _encode_backend(parameters["backend"], backend, tensors),
        "parameters": encode_all(kept, "parameters", tensors),
        "fitted": encode_all(fitted, "fitted", tensors),
    }
    content = to_bytes(tensors)
    state["sha256"] = {TENSOR_FILE: _digest(content), STATE_FILE: _digest(_canonical(state))}
    path = _writable_folder(folder)
    (path / TENSOR_FILE).write_bytes(content)
    (path / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def read_classifier(folder: str | os.PathLike[str], backend: Any = None) -> SavedClassifier:
    """Read a classifier that :func:`write_classifier` wrote.

    Parameters
    ----------
    folder : str or path-like
    backend : None, str, path-like or Backend, default=None
        The network. None loads it from its saved location.

    Raises
    ------
    MissingFileError
        If a saved file is missing.
    InputValueError
        If a file was edited, the format version is not supported, or the network differs.
    """
    from safetensors.torch import load as from_bytes

    path = Path(folder)
    state = _read_state(path)
    content = _read(path / TENSOR_FILE)
    _check_digest(path / TENSOR_FILE, content, state["sha256"][TENSOR_FILE])
    tensors = from_bytes(content)
    saved = state["backend"]
    given = _decode_backend(path, saved, tensors) if backend is None else backend
    parameters = {"backend": given, **decode_all(state["parameters"], tensors)}
    found = resolve_backend(given, parameters["device"], parameters["dtype"])
    _check_identity(path, state["backbone"], found.identity(), given=backend is not None)
    for name, item in decode_all(saved["learned"], tensors).items():
        setattr(found, name, item)
    fitted = {"backend_": found, **decode_all(state["fitted"], tensors)}
    fitted["_condition"] = _cast(fitted["_condition"], state["backbone_dtype"], found.dtype)
    return SavedClassifier(parameters, fitted)


# ------------------------------------------------------------------ the backbone


def _encode_backend(given: Any, fitted: Backend, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe how to get the backend again: by name, from its parameters, or not at all."""
    origin = fitted.saved_origin()
    kind: str = "memory"
    value: Any = type(fitted).__name__
    if is_kept(given):
        kind, value = "parameters", encode(given, "backend", tensors)
    elif given is None:
        kind, value = "name", None
    elif origin is not None and not isinstance(given, Backend):
        kind, value = "name", origin["name"]  # absolute path: works from any directory
    elif origin is not None:
        kind, value = "origin", encode_all(origin, "origin", tensors)
    learned = encode_all(learned_attributes(vars(fitted)), "backend_", tensors)
    return {"kind": kind, "value": value, "learned": learned}


def _decode_backend(path: Path, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild the classifier's ``backend`` parameter."""
    if saved["kind"] == "memory":
        raise InputValueError(
            f"{path} was saved with a {saved['value']} created in memory, which the folder does "
            "not hold; create it again and pass it: load(folder, backend=...)."
        )
    if saved["kind"] == "origin":
        return rebuild_backend(decode_all(saved["value"], tensors))
    return decode(saved["value"], tensors)


def _check_identity(path: Path, saved: dict, found: dict, *, given: bool) -> None:
    """Raise if the backbone is not the one that the prompts were encoded with."""
    names = sorted(set(saved) | set(found))
    changed = [
        f"{name} was {saved.get(name)!r}, now {found.get(name)!r}"
        for name in names
        if saved.get(name) != found.get(name) and not (given and name in PLACE)
    ]
    if changed:
        raise InputValueError(
            f"the backbone is not the one that {path} was saved with: {'; '.join(changed)}. Give "
            "the same model (load(folder, backend=...) if it has moved), or fit again."
        )


def _cast(condition: Conditioning, saved: str, dtype: torch.dtype) -> Conditioning:
    """Cast embeddings that had the saved network's dtype to the new one's ("auto" may differ)."""
    return Conditioning(
        **{
            name: tensor.to(dtype) if str(tensor.dtype) == saved else tensor
            for name, tensor in condition.tensors.items()
        }
    )


# ------------------------------------------------------------------ files


def _writable_folder(folder: str | os.PathLike) -> Path:
    """Return the folder, created if needed; raise if it holds other files than an earlier save."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise NotAFolderError(f"{path} is a file; pass a folder to save to.")
    path.mkdir(parents=True, exist_ok=True)
    others = sorted({item.name for item in path.iterdir()} - {STATE_FILE, TENSOR_FILE})
    if others:
        raise FolderInUseError(
            f"{path} holds other files ({', '.join(others[:3])}); pass a new or empty folder."
        )
    return path


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingFileError(
            f"{str(path)!r} does not exist; pass a folder that DiffusionClassifier.save wrote."
        )
    return path.read_bytes()


def _read_state(path: Path) -> dict[str, Any]:
    """Read the JSON file and check its format and sha256."""
    file = path / STATE_FILE
    try:
        state = json.loads(_read(file))
        kind, version = state["format"], state["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputValueError(f"{file} is not a saved classifier ({error!r}).") from error
    if kind != FORMAT or version != FORMAT_VERSION:
        raise InputValueError(
            f"{file} has format {kind!r}, version {version!r}, written by diffusion_classifier "
            f"{state.get('package_version')}, but release {__version__} reads {FORMAT!r}, version "
            f"{FORMAT_VERSION}; load it with the release that wrote it, or fit and save again."
        )
    sums = state.pop("sha256", {})
    _check_digest(file, _canonical(state), sums.get(STATE_FILE))
    return {**state, "sha256": sums}


def _canonical(state: dict[str, Any]) -> bytes:
    return json.dumps(state, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_digest(file: Path, content: bytes, expected: str | None) -> None:
    if _digest(content) != expected:
        raise InputValueError(
            f"{file} was edited or damaged after it was saved (its sha256 differs); restore it, "
            "or fit and save again."
        )
