"""Origin of a pipeline: a folder, the Hub, or this package."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ...errors import InputValueError, MissingFileError
from ...utils.constraints import Booleans, InstancesOf, Integers, Options, Sequences, Table
from ...utils.devices import DTYPES

EMBEDDED = "embedded"  # name of the embedded model; saved files hold it instead of a path
DATA = Path(__file__).parents[2] / "data"
SHIPPED_FOLDERS = {EMBEDDED: DATA / "scenes"}  # folders of the models in this package, by name
INDEX = "model_index.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/\w[\w.-]*")
PICKLED_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
CHECKPOINT_SUFFIXES = (".safetensors", ".ckpt")
SINGLE_FILE_ADVICE = (
    "give the path of a single-file checkpoint itself (model.safetensors), with its configuration "
    "beside it or by DiffusersBackend.from_single_file(file, config=folder)"
)
PICKLE_ADVICE = (
    "such files are pickles, which can run code when loaded, and are refused; if you trust it, "
    "convert it: diffusion-classifier convert FILE model.safetensors"
)


SAVED_ORIGIN: Table = {  # what a saved classifier says of its network, and all it may say
    "name": InstancesOf(str),
    "revision": InstancesOf(str) | None,
    "variant": InstancesOf(str) | None,
    "subfolder": InstancesOf(str) | None,
    "dtype": Options(*DTYPES),
    "device": InstancesOf(str) | None,
    "offload": Options(None, "model", "sequential"),
    "free_text_encoder": Booleans(),
    "image_shape": Sequences(Integers(1, 2**16)) | None,
    "config": InstancesOf(str) | None,
}
SAVED_LATER = ("config",)  # what folders of earlier releases lack


@dataclass(frozen=True)
class Origin:
    """Name and loading options of a pipeline: enough to load it again.

    Attributes
    ----------
    name : str
        Absolute path of a folder or safetensors file, a Hub id, or ``EMBEDDED``.
    config : str or None
        Absolute path of a single file's config folder; None looks for one beside the file.
    revision, variant, token, subfolder, dtype, device, offload, free_text_encoder, compile, options
        As in :meth:`DiffusersBackend.from_pretrained`.
    """

    name: str
    revision: str | None = None
    variant: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    subfolder: str | None = None
    dtype: Any = torch.float32
    device: str | None = None
    offload: str | None = None
    free_text_encoder: bool = False
    compile: Any = False
    options: dict[str, Any] = field(default_factory=dict)
    config: str | None = None

    def to_saved(self) -> dict[str, Any] | None:
        """Return what a saved classifier stores, or None if that could not load the pipeline.

        Options of diffusers are never stored, since some (custom pipelines) name code to run. The
        token is a secret and not stored either; whoever loads the classifier uses their own login.
        Compilation suits one machine and is left to whoever loads the classifier, too.
        """
        if self.options or not isinstance(self.dtype, torch.dtype):
            return None
        left_out = ("compile", "options", "token")
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in left_out
        }


def embedded_path() -> Path:
    """Return the folder of the embedded model."""
    return SHIPPED_FOLDERS[EMBEDDED]


def resolve_name(name: str | os.PathLike) -> str:
    """Return the absolute path of an existing folder or safetensors file, or a Hub id unchanged.

    Raises
    ------
    MissingFileError
        If there is no such folder and the name cannot be a Hub id.
    InputValueError
        If ``name`` is another file.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.is_file() and path.suffix == ".safetensors":
        return str(path.absolute())  # not resolved: links of the Hub's cache have no suffix
    if path.is_file():
        suffix = path.suffix.lower()
        advice = PICKLE_ADVICE if suffix in PICKLED_SUFFIXES else "give its folder"
        if suffix == ".safetensors":  # diffusers would read another spelling as a pickle
            advice = f"if it is a single-file checkpoint, rename it to {path.stem}{suffix}"
        raise InputValueError(f"{path} is a file, not a folder with a {INDEX}; {advice}.")
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        return name
    raise MissingFileError(
        f"no folder {str(path)!r}; give a folder that holds {INDEX}, or a Hub id 'owner/model'."
    )


def local_folder(origin: Origin) -> Path | None:
    """Return the pipeline's folder on this machine, or None for a Hub id.

    Raises
    ------
    MissingFileError
        If the folder does not exist.
    InputValueError
        If the folder holds no ``model_index.json``.
    """
    if origin.name in SHIPPED_FOLDERS:
        return SHIPPED_FOLDERS[origin.name]
    root = Path(origin.name)
    if not root.is_absolute():
        return None
    folder = root / (origin.subfolder or "")
    if not folder.is_dir():
        raise MissingFileError(f"no folder {str(folder)!r}; check its path (and subfolder=).")
    if not (folder / INDEX).is_file():
        raise InputValueError(f"{folder} has no {INDEX}: {_describe_folder(folder)}")
    return folder


def _describe_folder(folder: Path) -> str:
    """Say what a folder without an index holds and which folder to give instead."""
    names = sorted(path.name for path in folder.iterdir())
    for config in ("config.json", "scheduler_config.json"):
        if config in names:
            content = read_json(folder / config, str(folder))
            kind = content.get("_class_name") or content.get("architectures") or "of unknown class"
            kind = ", ".join(map(str, kind)) if isinstance(kind, list) else str(kind)
            return f"it is one component ({kind[:80]}) of a pipeline; give its parent folder."
    checkpoints = [name for name in names if name.endswith(CHECKPOINT_SUFFIXES)]
    if checkpoints:
        return f"it holds {checkpoints[0]}; {SINGLE_FILE_ADVICE}."
    holds = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"it holds {holds or 'nothing'}; give a folder that pipeline.save_pretrained(...) wrote."


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a small JSON file that holds one object.

    Raises
    ------
    MissingFileError
        If it is no file; a pipe or device is not read.
    InputValueError
        If it is not JSON, nested too deep to read, or not an object. ``name`` says whose it is.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is not a file; copy or download the folder again.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputValueError(
            f"{path.name} of {name} is not valid JSON ({str(error)[:100]}); download it again."
        ) from error
    if not isinstance(content, dict):
        raise InputValueError(
            f"{path.name} of {name} holds a JSON {type(content).__name__}, not an object with "
            "names and values; download it again."
        )
    return content


def read_index(path: Path, name: str) -> dict[str, Any]:
    """Read ``model_index.json`` and check that it names a pipeline class.

    Raises
    ------
    InputValueError
        If it is not JSON, or names no class or a class with its own code.
    """
    index = read_json(path, name)
    class_name = index.get("_class_name")
    if isinstance(class_name, list):
        raise InputValueError(
            f"{INDEX} of {name} asks for a pipeline with its own code ({class_name}), which is "
            "never run; if you trust it, load it with diffusers and wrap it with FunctionBackend."
        )
    if not isinstance(class_name, str):
        raise InputValueError(
            f"{INDEX} of {name} names no pipeline class (_class_name); save the pipeline with "
            "pipeline.save_pretrained(...)."
        )
    return index
