"""Which files of a component may be opened: ordinary files, and weights only as safetensors.

All checks read names, sizes, headers and small JSON files, never a tensor. A file may be a link,
as in the Hub's cache, but never a pipe, a device or a folder.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ...errors import InputFileError, InputValueError, MissingFileError
from .origin import INDEX, read_json

ADAPTER = "adapter_config.json"
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
READ_SUFFIXES = (".json", ".model", ".safetensors", ".txt")  # of files that the libraries read
CONVERT_ADVICE = (
    "Pickles can run code when loaded and are refused; if you trust these weights, download the "
    "folder and convert it: diffusion-classifier convert FOLDER NEW_FOLDER."
)
AGAIN = "copy or download the whole folder again"


def check_files(
    folder: Path, component: str, kind: type, variant: str | None, weights: bool = True
) -> None:
    """Check the files of a component before diffusers or transformers open any.

    Parameters
    ----------
    folder : Path
        The pipeline's folder.
    component : str
    kind : type
        The component's class.
    variant : str or None
        Variant of the weights that will be loaded.
    weights : bool, default=True
        Whether a network's weights are read from the folder, too, and not only its configuration.

    Raises
    ------
    MissingFileError, InputFileError, InputValueError
    """
    from transformers import ProcessorMixin

    part = folder / component
    if not part.is_dir():
        raise MissingFileError(
            f"{folder} has no folder {component!r}, though its {INDEX} names one; copy or "
            "download the whole pipeline again."
        )
    names = sorted(path.name for path in part.iterdir())
    for name in names:
        check_ordinary(part / name)
    if ADAPTER in names:
        raise InputValueError(
            f"{part} holds an adapter ({ADAPTER}), which would change the {component} without a "
            f"word; remove it. To use a LoRA, load it openly: pipeline.load_lora_weights(...), "
            "then DiffusersBackend(pipeline)."
        )
    for name in names:
        if name.endswith(".py") or name == "custom_generate":
            raise InputValueError(
                f"{part / name} is custom code, which is never run; remove it or, if you trust it, "
                "load the pipeline with diffusers and pass DiffusersBackend(pipeline)."
            )
    if issubclass(kind, ProcessorMixin):
        _check_no_code(part)
    configs = {name: read_json(part / name, str(part)) for name in CONFIGS if name in names}
    if issubclass(kind, torch.nn.Module):
        _check_config(part, configs.get("config.json", {}))
        if weights:
            _check_weights(part, names, variant, folder)
    elif vocabulary := getattr(kind, "vocab_files_names", None):
        _check_vocabulary(part, names, vocabulary)


def check_ordinary(path: Path) -> None:
    """Refuse what would block or mislead a reader: a pipe, a device, a folder, a broken link."""
    is_read = path.suffix in READ_SUFFIXES
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if is_read:
            raise MissingFileError(f"{path} cannot be read ({error}); {AGAIN}.") from error
        return
    if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not is_read):
        return
    what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
    raise InputFileError(f"{path} is {what} and not a file; {AGAIN}.")


def _check_no_code(part: Path) -> None:
    """Refuse what has classes of Python loaded: processors load their parts by ``auto_map``.

    Their Auto classes ask on the terminal whether to run it. Tokenizers by themselves do not.
    """
    for path in sorted(part.rglob("*.json")):
        if not path.is_file():
            continue
        try:
            left = [json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, RecursionError) as error:
            raise InputFileError(
                f"{path} is not valid JSON ({str(error)[:100]}); {AGAIN}."
            ) from error
        while left:
            value = left.pop()
            if isinstance(value, dict):
                found = value.get("auto_map")
                if found is not None and not isinstance(found, int | float):  # a word's number
                    raise InputValueError(
                        f"{path} names Python code (auto_map), which is never run; remove the "
                        "entry or, if you trust it, load the pipeline with diffusers and pass "
                        "DiffusersBackend(pipeline)."
                    )
                left += value.values()
            elif isinstance(value, list):
                left += value


def _check_config(part: Path, config: dict[str, Any]) -> None:
    """Refuse entries by which a configuration has other files or the Hub's code loaded."""
    if "transformers_weights" in config:
        raise InputValueError(
            f"config.json of {part} names a weight file of its own (transformers_weights), which "
            "is not supported; rename that file to model.safetensors and remove the entry."
        )
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name in ("attn_implementation", "_attn_implementation"):
            if "/" in str(section.get(name)):
                raise InputValueError(
                    f"config.json of {part} asks for attention code from the Hub ({name}), which "
                    "is never run; remove the entry."
                )


def _check_weights(part: Path, names: list[str], variant: str | None, folder: Path) -> None:
    """Check that a network has safetensors weights, whole ones, and no index beyond them."""
    weights = [name for name in names if name.endswith(".safetensors")]
    pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    if not weights and pickles:
        raise InputValueError(f"{part / pickles[0]} is not safetensors. {CONVERT_ADVICE}")
    if not weights:
        raise MissingFileError(f"{part} has no weights (*.safetensors); {AGAIN}.")
    if variant is None and all(name.count(".") > 1 for name in weights):
        only = weights[0].split(".")[1].split("-")[0]
        raise InputValueError(
            f"{part} has weights of variant {only!r} only; load them with "
            f"DiffusersBackend.from_pretrained({str(folder)!r}, variant={only!r})."
        )
    indices = [name for name in names if ".safetensors.index." in name]
    file_of = {name: _weight_map(part / name) for name in indices}
    keys = {name: tensor_names(part / name) for name in _chosen(weights, variant, dots=1)}
    for index in _chosen(indices, variant, dots=3):
        for key, name in file_of[index].items():
            if name not in weights:
                raise MissingFileError(
                    f"{part / name} is missing, though {index} names it; {AGAIN}."
                )
            if name in keys and key not in keys[name]:
                raise InputFileError(
                    f"{part / name} has no {key!r}, though {index} says so; {AGAIN}."
                )


def _chosen(names: Iterable[str], variant: str | None, dots: int) -> list[str]:
    """Return the names of a variant, or, if there are none, those without any variant."""
    names = list(names)
    of_variant = [name for name in names if f".{variant}." in name or f".{variant}-" in name]
    return of_variant or [name for name in names if name.count(".") == dots]


def _weight_map(path: Path) -> dict[str, str]:
    """Read which file holds each tensor, and check that all are safetensors beside the index."""
    weight_map = read_json(path, str(path.parent)).get("weight_map")
    if not isinstance(weight_map, dict):
        raise InputFileError(f"{path} has no weight_map; {AGAIN}.")
    for key, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise InputValueError(
                f"{path} says that {key[:80]!r} is in {str(name)[:80]!r}, which is not the name "
                f"of a file beside it; {AGAIN}."
            )
        if not name.endswith(".safetensors"):
            raise InputValueError(
                f"{path} says that {key[:80]!r} is in {name[:80]!r}, which is not safetensors. "
                f"{CONVERT_ADVICE}"
            )
    return weight_map


def tensor_names(path: Path) -> set[str]:
    """Return the names of the tensors of a safetensors file, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            return set(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise InputFileError(
            f"{path} is not a complete safetensors file ({error}); download it again, and if it "
            "is of another format, convert it."
        ) from error


def _check_vocabulary(part: Path, names: list[str], files: dict[str, str]) -> None:
    """Check that a tokenizer has its vocabulary: without one, it knows no word and says nothing."""
    needed = [name for role, name in files.items() if role != "tokenizer_file"]
    missing = [name for name in needed if name not in names]
    if "tokenizer.json" not in names and (missing or not needed):
        raise MissingFileError(
            f"{part} has no tokenizer.json, nor {' and '.join(missing)}: the tokenizer would know "
            f"no words; {AGAIN}."
        )
