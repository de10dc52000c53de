"""Fitted classifiers as a folder: what was learned and chosen, never the network.

    classifier.json       parameters, strategies, classes, prompts, the backbone's identity
    tensors.safetensors   prompt embeddings, weights w(t), everything else that is an array

Loading runs no code from the folder (see :mod:`diffusion_classifier.estimator.saved_values`). Both
files carry a sha256, so that one edited or damaged is noticed; it is no proof of who wrote them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from .._version import __version__
from ..backends.base import Backend, Conditioning
from ..backends.embedded import load_embedded
from ..backends.loading.origin import EMBEDDED
from ..backends.resolve import resolve_backend
from ..errors import FolderInUseError, InputValueError, MissingFileError, NotAFolderError
from ..utils.devices import resolve_device, resolve_dtype
from .saved_values import decode, decode_all, encode, encode_all, is_kept, learned_attributes

FORMAT = "diffusion_classifier"
FORMAT_VERSION = 1
STATE_FILE = "classifier.json"
TENSOR_FILE = "tensors.safetensors"
PLACE = ("name", "revision", "subfolder")  # of an identity: where a backbone is, not which it is


class PersistenceMixin:
    """``save`` and ``load`` of the estimator."""

    def save(self, folder: str | os.PathLike) -> None:
        """Write the fitted classifier as JSON and safetensors, without the network.

        Kept are parameters, prompts and their embeddings, weights of the timesteps, everything
        learned, the seed of the draws, and which network it was: its name, revision and a hash of
        its configuration. ``random_state`` is kept unless it is a generator.

        Parameters
        ----------
        folder : str or path-like
            Made if there is none. An earlier save in it is written over.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        FileExistsError, NotADirectoryError
            If the folder holds anything but an earlier save, or is a file.
        TypeError
            If a parameter is of a class from outside this package, whose code loading would need.

        Examples
        --------
        >>> import tempfile
        >>> from diffusion_classifier import DiffusionClassifier
        >>> clf = DiffusionClassifier(random_state=0).fit(None, ["one", "two"])
        >>> folder = tempfile.mkdtemp()
        >>> clf.save(folder)
        >>> DiffusionClassifier.load(folder).prompts_
        {'one': ['a one'], 'two': ['a two']}
        """
        save_classifier(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike, *, backend: Any = None) -> Any:
        """Read a classifier that ``save`` wrote; no code from the folder is run.

        Parameters
        ----------
        folder : str or path-like
        backend : None, str, path-like or Backend, default=None
            The network, if it was made in memory or has moved. None: loaded from where it was.

        Returns
        -------
        DiffusionClassifier
            Fitted; its answers are those of the saved one.

        Raises
        ------
        FileNotFoundError
            If a file of the save is missing.
        ValueError
            If a file was edited, the format is of another version, or the network is another one:
            its configuration differs or, without ``backend``, its name or revision.
        """
        return load_classifier(cls, folder, backend)


def save_classifier(clf: Any, folder: str | os.PathLike) -> None:
    """Write a fitted classifier; see :meth:`PersistenceMixin.save`."""
    check_is_fitted(clf)
    tensors: dict[str, Tensor] = {}
    parameters = clf.get_params(deep=False)
    given = parameters.pop("backend")
    if isinstance(clf.random_state, np.random.RandomState):
        parameters["random_state"] = None  # it moves on; what it gave is kept, as seed_
    state = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "backbone": clf.backend_.identity(),
        "backbone_dtype": str(clf.backend_.dtype),
        "backend": _encode_backend(given, clf.backend_, tensors),
        "parameters": encode_all(parameters, "parameters", tensors),
        "fitted": encode_all(_fitted_attributes(clf), "fitted", tensors),
    }
    from safetensors.torch import save as to_bytes

    content = to_bytes(tensors)
    state["sha256"] = {TENSOR_FILE: _digest(content), STATE_FILE: _digest(_canonical(state))}
    path = _writable_folder(folder)
    (path / TENSOR_FILE).write_bytes(content)
    (path / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_classifier(cls: type, folder: str | os.PathLike, backend: Any) -> Any:
    """Read a classifier of type ``cls``; see :meth:`PersistenceMixin.load`."""
    from safetensors.torch import load as from_bytes

    path = Path(folder)
    state = _read_state(path)
    content = _read(path / TENSOR_FILE)
    _check_digest(path / TENSOR_FILE, content, state["sha256"][TENSOR_FILE])
    tensors = from_bytes(content)
    saved = state["backend"]
    clf = cls(
        _decode_backend(path, saved, tensors) if backend is None else backend,
        **decode_all(state["parameters"], tensors),
    )
    clf.backend_ = resolve_backend(clf.backend, clf.device, clf.dtype)
    _check_identity(path, state["backbone"], clf.backend_.identity(), given=backend is not None)
    for name, item in decode_all(saved["learned"], tensors).items():
        setattr(clf.backend_, name, item)
    for name, item in decode_all(state["fitted"], tensors).items():
        setattr(clf, name, item)
    clf._condition = _cast(clf._condition, state["backbone_dtype"], clf.backend_.dtype)
    return clf


# ------------------------------------------------------------------ the backbone


def _encode_backend(given: Any, fitted: Backend, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """How to come by the backend again: by name, from its parameters, or not at all."""
    learned = encode_all(learned_attributes(fitted), "backend_", tensors)
    origin = getattr(fitted, "_origin", None)
    kind: str = "memory"
    value: Any = type(fitted).__name__
    if is_kept(given):
        kind, value = "parameters", encode(given, "backend", tensors)
    elif given is None:
        kind, value = "name", None
    elif not isinstance(given, Backend) and origin is not None:
        kind, value = "name", origin.name  # an absolute path, found from elsewhere too
    elif origin is not None and not origin.options and isinstance(origin.dtype, torch.dtype):
        # Options of diffusers are not kept: some of them (custom pipelines) name code to run. A
        # token is a secret: the reader's own login serves.
        place = {item.name: getattr(origin, item.name) for item in fields(origin)}
        del place["options"], place["token"]
        place["image_shape"] = fitted.image_shape
        kind, value = "origin", encode_all(place, "origin", tensors)
    return {"kind": kind, "value": value, "learned": learned}


def _decode_backend(path: Path, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The classifier's ``backend`` parameter."""
    if saved["kind"] == "memory":
        raise InputValueError(
            f"{path} was saved with a {saved['value']} made in memory, which is not in the folder: "
            "make it again and pass it, load(folder, backend=...)."
        )
    if saved["kind"] != "origin":
        return decode(saved["value"], tensors)
    from ..backends.pipeline import DiffusersBackend

    value = decode_all(saved["value"], tensors)
    value["dtype"] = resolve_dtype(value["dtype"], torch.device("cpu"))
    if value["device"] is not None:
        value["device"] = resolve_device(value["device"])
    if value["name"] == EMBEDDED:
        return load_embedded(value["device"], value["dtype"], image_shape=value["image_shape"])
    return DiffusersBackend.from_pretrained(value.pop("name"), **value)


def _check_identity(path: Path, saved: dict, found: dict, *, given: bool) -> None:
    """Refuse another backbone than the one that prompts were encoded with."""
    names = sorted(set(saved) | set(found))
    changed = [
        f"{name} was {saved.get(name)!r}, is {found.get(name)!r}"
        for name in names
        if saved.get(name) != found.get(name) and not (given and name in PLACE)
    ]
    if changed:
        raise InputValueError(
            f"the backbone is not the one that {path} was saved with: {'; '.join(changed)}. Give "
            "the same model (load(folder, backend=...) if it has moved), or fit again."
        )


def _cast(condition: Conditioning, saved: str, dtype: torch.dtype) -> Conditioning:
    """Prompt embeddings in the network's dtype, where they were before ("auto" may differ)."""
    return Conditioning(
        **{
            name: tensor.to(dtype) if str(tensor.dtype) == saved else tensor
            for name, tensor in condition.tensors.items()
        }
    )


def _fitted_attributes(clf: Any) -> dict[str, Any]:
    fitted = {**learned_attributes(clf), "_condition": clf._condition, "_scoring": clf._scoring}
    del fitted["backend_"]
    return fitted


# ------------------------------------------------------------------ files


def _writable_folder(folder: str | os.PathLike) -> Path:
    """A folder that is new, empty, or holds an earlier save only."""
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise NotAFolderError(f"{path} is a file; give a folder to save in.")
    path.mkdir(parents=True, exist_ok=True)
    others = sorted({item.name for item in path.iterdir()} - {STATE_FILE, TENSOR_FILE})
    if others:
        raise FolderInUseError(
            f"{path} holds other files ({', '.join(others[:3])}); give a folder of its own."
        )
    return path


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingFileError(
            f"no file {str(path)!r}; give a folder that DiffusionClassifier.save wrote."
        )
    return path.read_bytes()


def _read_state(path: Path) -> dict[str, Any]:
    """The JSON, its format and sum checked."""
    file = path / STATE_FILE
    try:
        state = json.loads(_read(file))
        kind, version = state["format"], state["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputValueError(f"{file} is not a saved classifier ({error!r}).") from error
    if kind != FORMAT or version != FORMAT_VERSION:
        raise InputValueError(
            f"{file} is of format {kind!r}, version {version!r}, written by diffusion_classifier "
            f"{state.get('package_version')}; this is {__version__}, which reads {FORMAT!r}, "
            f"version {FORMAT_VERSION}. Load it with that release, or fit and save again."
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
