"""The two files of a saved classifier, which are replaced together or not at all.

The JSON file is replaced in one step and names its tensor file. As that file must not change under
an earlier JSON file, new tensors are first written to ``spare.safetensors``, then to their usual
place. Writers take turns.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..._version import __version__
from ...errors import (
    DamagedFileError,
    FolderInUseError,
    InputFileError,
    InputTypeError,
    InputValueError,
    MissingFileError,
)
from ...utils.constraints import InstancesOf, check_entries
from ...utils.display import short_repr
from ...utils.files import (
    PREFIX,
    atomic_file,
    check_own_folder,
    check_regular,
    locked,
    read_regular,
)
from .format import FORMAT, FORMAT_VERSION, STATE, check_depth

STATE_FILE = "classifier.json"
TENSOR_FILE = "tensors.safetensors"
SPARE_FILE = "spare.safetensors"  # tensors while an earlier save is replaced
LARGEST_STATE = 2**28  # bytes; 100,000 prompts take about 2**24
MOST_TRIES = 100  # to read a folder while others save to it


@contextmanager
def refusing(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error about a value of a saved classifier into one that names the file."""
    try:
        yield
    except InputFileError:
        raise
    except (InputValueError, InputTypeError) as error:
        raise DamagedFileError(
            f"{Path(folder) / STATE_FILE} is not what DiffusionClassifier.save writes: {error} "
            "Restore it, or fit and save again."
        ) from error


def as_path(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a folder; raise an InputTypeError if it is none."""
    if not isinstance(folder, str | os.PathLike):
        raise InputTypeError(f"folder={short_repr(folder)} must be the path of a folder.")
    return Path(folder)


def replace_files(path: Path, state: dict[str, Any], content: bytes) -> None:
    """Write both files; until the last step is done, an earlier save is whole."""
    try:
        check_own_folder(path)
        path.mkdir(parents=True, exist_ok=True)
    except InputFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputFileError(
            f"the folder {short_repr(str(path))} cannot be made ({error}); pass another folder."
        ) from error
    with locked(path):
        _check_in_folder(path)
        spare_in_use = (path / SPARE_FILE).exists() and _names_spare(path)
        replaces = (path / STATE_FILE).exists() and not spare_in_use
        for name in (SPARE_FILE, TENSOR_FILE) if replaces else (TENSOR_FILE,):
            sums = {name: _digest(content), STATE_FILE: _digest(_canonical(state))}
            with atomic_file(path / name) as file:
                file.write(content)
            with atomic_file(path / STATE_FILE) as file:
                file.write(json.dumps({**state, "sha256": sums}, indent=1).encode() + b"\n")
        (path / SPARE_FILE).unlink(missing_ok=True)


def _check_in_folder(path: Path) -> None:
    """Raise if a folder holds other files than an earlier save, or links in their places."""
    own = (STATE_FILE, TENSOR_FILE, SPARE_FILE)
    names = sorted(item.name for item in path.iterdir() if not item.name.startswith(PREFIX))
    others = [name for name in names if name not in own]
    if others:
        raise FolderInUseError(
            f"{path} holds other files ({', '.join(map(short_repr, others[:3]))}); pass a new or "
            "empty folder."
        )
    for name in names:
        check_regular(path / name)


def _names_spare(path: Path) -> bool:
    """Whether the tensors of an earlier save, which was interrupted, are in the spare file."""
    try:
        return SPARE_FILE in json.loads(read_regular(path / STATE_FILE, LARGEST_STATE))["sha256"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return False


def read_files(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files of one save, though another process may be saving at the same time."""
    for _ in range(MOST_TRIES):
        content = _read_state(path)
        try:
            state = _parse(path / STATE_FILE, content)
            return state, _read_tensors(path, state["sha256"])
        except InputFileError:
            if _read_state(path) == content:
                raise
    raise InputFileError(f"{path} is being saved to again and again; load it later.")


def _read_state(path: Path) -> bytes:
    try:
        return read_regular(path / STATE_FILE, LARGEST_STATE)
    except MissingFileError as error:
        raise MissingFileError(
            f"{str(path / STATE_FILE)!r} does not exist; pass a folder that "
            "DiffusionClassifier.save wrote."
        ) from error


def _parse(file: Path, content: bytes) -> dict[str, Any]:
    """Parse the JSON file and check its format, keys and sha256."""
    try:
        state = json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates)
        kind, version = state["format"], state["format_version"]
        check_depth(state)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFileError(
            f"{file} is not a saved classifier ({short_repr(error)})."
        ) from error
    if kind != FORMAT or version != FORMAT_VERSION:
        raise DamagedFileError(
            f"{file} has format {short_repr(kind)}, version {short_repr(version)}, written by "
            f"diffusion_classifier {short_repr(state.get('package_version'))}, but release "
            f"{__version__} reads {FORMAT!r}, version {FORMAT_VERSION}; load it with the release "
            "that wrote it, or fit and save again."
        )
    with refusing(file.parent):
        check_entries("the file", state, STATE)
    sums = state.pop("sha256")
    _check_digest(file, _canonical(state), sums.get(STATE_FILE))
    return {**state, "sha256": sums}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _read_tensors(path: Path, sums: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the tensor file that the JSON file names, and check its sha256."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load as from_bytes

    name = SPARE_FILE if SPARE_FILE in sums else TENSOR_FILE
    with refusing(path):
        check_entries("sha256", sums, dict.fromkeys((name, STATE_FILE), InstancesOf(str)))
    file = path / name
    check_regular(file)
    try:
        with safe_open(file, framework="pt"):
            pass  # compares the file's size with its header before anything is read into memory
        content = read_regular(file)
        _check_digest(file, content, sums[name])
        return from_bytes(content)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{str(file)!r} does not exist; pass a folder that DiffusionClassifier.save wrote."
        ) from error
    except InputFileError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedFileError(
            f"{file} is not a whole safetensors file ({short_repr(error)}); restore it, or fit and "
            "save again."
        ) from error


def _canonical(state: dict[str, Any]) -> bytes:
    return json.dumps(state, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_digest(file: Path, content: bytes, expected: str | None) -> None:
    if _digest(content) != expected:
        raise DamagedFileError(
            f"{file} was edited or damaged after it was saved (its sha256 differs); restore it, "
            "or fit and save again."
        )
