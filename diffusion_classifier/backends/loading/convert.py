"""Pickled weights to safetensors: ``W.bin`` to ``W.safetensors``, with the same names and values.

A pickle can run code when it is loaded, so models are never read from one. This is the explicit
way out. The pickles are opened in a process of their own (``unpickle.py``), as weights alone.
Everything is written beside the destination and renamed at the end: what has the destination's name
is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...errors import (
    DamagedFileError,
    FolderInUseError,
    InputFileError,
    InputValueError,
    MissingFileError,
)
from .files import PICKLE_SUFFIXES, check_ordinary
from .origin import read_json

WEIGHTS = ("pytorch_model", "diffusion_pytorch_model", "model")  # how names of weights begin
UNREAD = "model"  # a name that loaders read with safetensors only: converted if it is alone
# A variant, the number of a shard or both may follow, as in model.fp16-00001-of-00002.
STEM = re.compile(rf"({'|'.join(WEIGHTS)})(\.\w+)?(-\d{{5}}-of-\d{{5}})?(\.\w+)?")
PICKLE_INDEX = ".bin.index."
NEVER_COPIED = (*PICKLE_SUFFIXES, ".pth.tar", ".pickle", ".joblib")
SCRIPT = Path(__file__).with_name("unpickle.py")
ADVICE = {
    "unsafe": "nothing of it was run. Look for a safetensors file of this model, or ask its author "
    "for the weights alone",
    "format": "only weights that torch.save wrote are converted",
    "script": "load it with torch.jit.load if you trust it, save its state_dict() with torch.save, "
    "and convert that",
    "empty": "look for the file that holds the weights",
    "name": "rename the tensor and save the file again",
    "dtype": "safetensors has no such numbers; convert the tensor, save the file again",
    "write": "free some space, or choose a destination elsewhere",
    "memory": "close other programs, or use a machine with more memory",
}


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert_weights` did.

    Attributes
    ----------
    path : pathlib.Path
        The new file or folder.
    n_files, n_tensors : int
        Weight files that were converted, and tensors in them.
    left_out : list of str
        Files of the source folder that are not in the new one, by their path in it: pickles that
        no loader of weights reads or that have a safetensors twin, hidden files, and hidden
        folders, which end with "/".

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffusion_classifier.backends import Conversion
    >>> Conversion(Path("new"), n_files=1, n_tensors=2, left_out=["optimizer.pt"]).n_tensors
    2
    """

    path: Path
    n_files: int
    n_tensors: int
    left_out: list[str]


def convert_weights(source: str | Path, dest: str | Path) -> Conversion:
    """Convert pickled weights to safetensors, in a process of its own.

    Parameters
    ----------
    source : str or path
        A checkpoint file that ``torch.save`` wrote (``.ckpt``, ``.pt``, ``.pth``, ``.bin``), with
        tensors by name, also under ``"state_dict"``. Or a folder of diffusers or transformers
        whose weights are ``.bin`` files, sharded ones too.
    dest : str or path
        What to write: a ``.safetensors`` file for a file, a folder for a folder. It must not exist.
        A folder holds all other files as well, without pickles.

    Returns
    -------
    Conversion

    Raises
    ------
    MissingFileError
        If ``source`` does not exist, or the folder that ``dest`` is to be in.
    FolderInUseError
        If ``dest`` exists.
    DamagedFileError
        If a file is no checkpoint, is not complete, or holds more than tensors. Nothing in it runs.
    InputFileError
        If the disk or memory is too small. Nothing is left behind.
    InputValueError
        If a folder has nothing to convert, or links to files outside.

    Notes
    -----
    Names, shapes, dtypes and values are compared after writing. Tied weights are written under
    each of their names, and their bytes are counted so before anything is written.

    Examples
    --------
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from diffusion_classifier.backends import convert_weights
    >>> folder = Path(tempfile.mkdtemp())
    >>> torch.save({"state_dict": {"weight": torch.ones(2, 3)}}, folder / "model.ckpt")
    >>> convert_weights(folder / "model.ckpt", folder / "model.safetensors").n_tensors
    1
    """
    source, dest = Path(source), Path(os.path.abspath(dest))
    if not source.exists():
        raise MissingFileError(f"{source} does not exist; give a checkpoint file or a folder.")
    _check_free(dest)
    if not source.is_dir() and dest.suffix != ".safetensors":
        raise InputValueError(f"{dest} must end with .safetensors, since {source} is a file.")
    if not dest.parent.is_dir():
        raise MissingFileError(f"{dest.parent} is not a folder; make it first (mkdir -p).")
    # the Hub's cache is known by its names, also behind a link; a file keeps its own name
    source = source.resolve() if source.is_dir() else Path(os.path.abspath(source))
    plan = _plan(source) if source.is_dir() else _file_plan(source)
    needed = sum(path.stat().st_size for path in (*plan.weights, *plan.copies))
    if (free := shutil.disk_usage(dest.parent).free) < needed:
        raise InputFileError(
            f"{dest} needs {needed:,} bytes and {dest.parent} has {free:,} left; {ADVICE['write']}."
        )
    try:
        building = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    except OSError as error:
        raise InputFileError(f"{dest} cannot be written ({error}); {ADVICE['write']}.") from error
    try:
        n_tensors = _build(source, building / "new", plan)
        _check_free(dest)
        (building / "new").rename(dest)
    except OSError as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{dest} cannot be written ({error}); {ADVICE['write']}.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Conversion(dest, len(plan.weights), n_tensors, plan.left_out)


@dataclass(frozen=True)
class _Plan:
    """Which files become which, by their path in the new folder, or "" for a single file."""

    weights: dict[Path, str]
    indices: dict[Path, str]
    copies: dict[Path, str]
    left_out: list[str]


def _check_free(dest: Path) -> None:
    """Refuse to overwrite."""
    if os.path.lexists(dest):
        raise FolderInUseError(f"{dest} exists and is not overwritten; choose another name.")


def _file_plan(source: Path) -> _Plan:
    check_ordinary(source)
    return _Plan({source: ""}, {}, {}, [])


def _plan(source: Path) -> _Plan:
    """Decide about every file of a folder, before anything is written."""
    plan = _Plan({}, {}, {}, [])
    names: dict[Path, str] = {}
    for folder, folders, files in os.walk(source):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                _check_link(path, source)
        plan.left_out.extend(
            f"{Path(folder, name).relative_to(source)}/" for name in folders if name[0] == "."
        )
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names |= {Path(folder, name): name for name in sorted(files)}
    for path, name in names.items():
        place = path.relative_to(source)
        new = place.with_name(_new_name(name))
        is_new = new != place and source / new not in names
        if name.startswith(UNREAD) and any(
            _new_name(other.name) != other.name and not other.name.startswith(UNREAD)
            for other in names
            if other.parent == path.parent
        ):
            is_new = False
        if name.startswith(".") or (name.lower().endswith(NEVER_COPIED) and not is_new):
            plan.left_out.append(str(place))
            continue
        check_ordinary(path)
        if PICKLE_INDEX in name and is_new:
            plan.indices[path] = str(new)
        elif PICKLE_INDEX in name:
            plan.left_out.append(str(place))
        elif name.endswith(PICKLE_SUFFIXES):
            plan.weights[path] = str(new)
        elif path.is_file():
            plan.copies[path] = str(place)
        else:
            raise InputFileError(f"{path} is not an ordinary file; remove it from the folder.")
    if not plan.weights:
        raise InputValueError(
            f"{source} has no weights to convert ({' or '.join(WEIGHTS[:2])}*.bin without a "
            "safetensors file of the same name)."
        )
    return plan


def _new_name(name: str) -> str:
    """Name of a converted file.

    >>> _new_name("pytorch_model-00001-of-00002.bin")
    'model-00001-of-00002.safetensors'
    >>> _new_name("diffusion_pytorch_model.bin.index.json")
    'diffusion_pytorch_model.safetensors.index.json'
    >>> _new_name("training_args.bin")
    'training_args.bin'
    >>> _new_name("model_ema.bin")
    'model_ema.bin'
    """
    stem, dot, end = name.partition(PICKLE_INDEX) if PICKLE_INDEX in name else name.rpartition(".")
    if not STEM.fullmatch(stem) or (dot == "." and end != "bin"):
        return name
    new = "model" + stem.removeprefix("pytorch_model") if stem.startswith("pytorch_model") else stem
    return f"{new}.safetensors" + (f".index.{end}" if dot == PICKLE_INDEX else "")


def _check_link(path: Path, source: Path) -> None:
    """Refuse a link that leads outside; a folder of the Hub's cache links to its own blobs."""
    within = [source.resolve()]
    if source.parent.name == "snapshots":
        within.append(source.resolve().parents[1] / "blobs")
    found = path.resolve()
    if path.is_dir() or not any(found.is_relative_to(folder) for folder in within):
        raise InputValueError(
            f"{path} is a link to {found}, which is a folder or outside {source}; replace the link "
            "by a copy of what it names."
        )


def _build(source: Path, new: Path, plan: _Plan) -> int:
    """Write everything, and return the number of tensors."""
    for path, place in plan.copies.items():
        (new / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, new / place)
    for place in plan.weights.values():
        (new / place).parent.mkdir(parents=True, exist_ok=True)
    names = _unpickle({path: new / place for path, place in plan.weights.items()})
    for path, place in plan.indices.items():
        index = read_json(path, str(path.parent))
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict):
            raise DamagedFileError(f"{path} has no weight_map; download the folder again.")
        for key, name in weight_map.items():
            is_beside = isinstance(name, str) and name != "" and Path(name).name == name
            shard = (new / place).with_name(_new_name(name) if is_beside else "none")
            if key not in names.get(str(shard), ()):
                raise DamagedFileError(
                    f"{path} says that {str(key)[:80]!r} is in {str(name)[:80]!r}, which is "
                    "missing or does not hold it; download the folder again."
                )
            weight_map[key] = shard.name
        (new / place).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return sum(map(len, names.values()))


def _unpickle(files: dict[Path, Path]) -> dict[str, list[str]]:
    """Convert files in a process of its own, and return the names of tensors by new file."""
    job = json.dumps([[str(source), str(target)] for source, target in files.items()])
    # -P: no module beside the script or in the working folder is imported
    command = [sys.executable, "-P", str(SCRIPT)]
    done = subprocess.run(command, input=job, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise InputFileError(
            f"the conversion was stopped by signal {-done.returncode}; memory may have run out: "
            f"{ADVICE['memory']}."
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise InputFileError(f"the conversion failed: {reason.rstrip('.')}.")
    answer = json.loads(done.stdout)
    if "reason" in answer:
        kind = InputFileError if answer["reason"] in ("write", "memory") else DamagedFileError
        raise kind(f"{answer['message']}; {ADVICE[answer['reason']]}.")
    for source, target in files.items():
        shutil.copymode(source, target)  # safetensors lets only the user read what it writes
    return dict(answer["written"])
