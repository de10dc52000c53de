"""From a fitted classifier to the contents of its two files, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..._version import __version__
from ...backends.base import Backend, Conditioning
from ...backends.loading.origin import SAVED_LATER, SAVED_ORIGIN
from ...backends.resolve import rebuild_backend, resolve_backend
from ...errors import InputValueError
from ...utils.constraints import check, check_entries
from ...utils.display import short_repr
from .files import as_path, read_files, refusing, replace_files
from .format import (
    BACKEND,
    FORMAT,
    FORMAT_VERSION,
    KIND_OF_VALUE,
    check_fitted,
    check_keys,
    check_learned,
)
from .shortlists import cast_shortlist, with_proposer, without_proposer
from .values import Decoder, encode, encode_all, is_kept, learned_attributes

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
    InputFileError
        If the folder or a file in it is a symbolic link, or cannot be written.
    InputTypeError
        If ``folder`` is no path, or a parameter is an instance of a class of your own.
    InputValueError
        If the classifier has attributes that ``fit`` does not set.
    """
    from safetensors.torch import save as to_bytes

    path = as_path(folder)
    tensors: dict[str, Tensor] = {}
    backend: Backend = attributes["backend_"]
    fitted = learned_attributes(attributes) | {name: attributes[name] for name in UNDERSCORED}
    del fitted["backend_"]
    check_fitted(fitted, backend)
    # memory is a folder of this machine, callbacks are objects of this process
    left_out = ("backend", "memory", "callbacks")
    kept = {name: value for name, value in parameters.items() if name not in left_out}
    kept["shortlist"] = without_proposer(kept["shortlist"])
    if "shortlist_" in fitted:
        fitted["shortlist_"] = without_proposer(fitted["shortlist_"])
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
    replace_files(path, state, to_bytes(tensors))


def read_classifier(
    folder: str | os.PathLike[str],
    defaults: Mapping[str, Any],
    backend: Any = None,
    proposer: Any = None,
) -> SavedClassifier:
    """Read a classifier that :func:`write_classifier` wrote.

    Parameters
    ----------
    folder : str or path-like
    defaults : mapping
        All constructor parameters. The folder may lack some, if an earlier release wrote it.
    backend : None, str, path-like or Backend, default=None
        The network. None loads it from its saved location.
    proposer : classifier, optional
        Of a ``Shortlist``.

    Raises
    ------
    InputTypeError
        If ``folder`` is no path.
    MissingFileError
        If a saved file is missing.
    DamagedFileError
        If a file is not as :func:`write_classifier` writes it.
    InputValueError
        If the network differs, or was made in memory and is not given.
    """
    path = as_path(folder)
    state, tensors = read_files(path)
    saved, decoder = state["backend"], Decoder(tensors)
    with refusing(path):
        check_entries("backend", saved, BACKEND)
        check_keys("parameters", state["parameters"], defaults)
        value = _decode_backend(saved, decoder)
        parameters = {**defaults, **decoder.values(state["parameters"], "parameters")}
        fitted = decoder.values(state["fitted"], "fitted")
        learned = decoder.values(saved["learned"], "backend_")
        decoder.check_all_used()
    given = _rebuild_backend(path, saved["kind"], value) if backend is None else backend
    found = resolve_backend(given, parameters["device"], parameters["dtype"])
    _check_identity(path, state["backbone"], found.identity(), given=backend is not None)
    with refusing(path):
        check_learned("backend.learned", found, learned)
        for name, item in learned.items():
            setattr(found, name, item)
        check_fitted(fitted, found)
    cast = partial(_cast, saved=state["backbone_dtype"], dtype=found.dtype)
    fitted["_condition"] = cast(fitted["_condition"])
    cast_shortlist(fitted.get("shortlist_"), cast)
    with_proposer(parameters, fitted, proposer, path)
    return SavedClassifier({**parameters, "backend": given}, {"backend_": found, **fitted})


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


def _decode_backend(saved: Mapping[str, Any], decoder: Decoder) -> Any:
    """Return the value that says how to get the backend again."""
    kind, value = saved["kind"], saved["value"]
    if kind == "origin":
        value = decoder.values(value, "origin")
        check_entries("backend.value", value, SAVED_ORIGIN, optional=SAVED_LATER)
    elif kind == "parameters":
        value = decoder.value(value, "backend")
    check("backend.value", value, KIND_OF_VALUE[kind])
    return value


def _rebuild_backend(path: Path, kind: str, value: Any) -> Any:
    """Return the classifier's ``backend`` parameter."""
    if kind == "memory":
        raise InputValueError(
            f"{path} was saved with a {value} created in memory, which the folder does not hold; "
            "create it again and pass it: load(folder, backend=...)."
        )
    return rebuild_backend(value) if kind == "origin" else value


def _check_identity(path: Path, saved: dict, found: dict, *, given: bool) -> None:
    """Raise if the backbone is not the one that the prompts were encoded with."""
    names = sorted(set(saved) | set(found))
    changed = [
        f"{short_repr(name)[1:-1]} was {short_repr(saved.get(name))}, now "
        f"{short_repr(found.get(name))}"
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
