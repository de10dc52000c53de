"""Which folder says what the tensors of a single file mean: the one given, or one beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from ...errors import InputValueError, MissingFileError
from .files import check_ordinary, tensor_names
from .origin import INDEX, Origin

ADAPTER = ("lora_", ".lora", ".alpha", "hada_", "lokr_", "dora_scale")


def file_of(origin: Origin) -> Path | None:
    """Return the single file that an origin names, or None."""
    path = Path(origin.name)
    return path if path.is_absolute() and path.suffix == ".safetensors" else None


def config_folder(origin: Origin) -> Path:
    """Return the config folder of a single file: the one given, or one beside the file.

    Beside ``model.safetensors``, these are looked up: the folder ``model``, the folder ``config``
    and the file's own folder; the first that holds a ``model_index.json`` is taken.

    Raises
    ------
    MissingFileError
        If the file, or any such folder, is missing.
    InputValueError
        If the file is no whole model, or an option was given that single files do not have.
    """
    path = Path(origin.name)
    if not path.is_file():
        raise MissingFileError(f"no file {str(path)!r}; check its path.")
    for name in ("revision", "variant", "subfolder"):
        if getattr(origin, name) is not None:
            raise InputValueError(f"{name}= is not for a single file ({path}); leave it out.")
    if origin.options or not isinstance(origin.dtype, torch.dtype):
        what = next(iter(origin.options), "a dtype for each component")
        raise InputValueError(
            f"{what} is not for a single file ({path}); load it with diffusers' from_single_file "
            "and pass DiffusersBackend(pipeline)."
        )
    beside = [path.with_suffix(""), path.parent / "config", path.parent]
    for folder in [Path(origin.config)] if origin.config else beside:
        if (folder / INDEX).is_file():
            return folder
    check_ordinary(path)
    check_whole(path, tensor_names(path))
    if origin.config:
        raise MissingFileError(f"config={origin.config!r} has no {INDEX}; give a diffusers folder.")
    repository = _usual_repository(path)
    raise MissingFileError(
        f"{path} needs a config folder, which says what its tensors mean: there is no {INDEX} in "
        f"{beside[0]}, {beside[1]} or beside the file. Download it without weights: hf download "
        f"{repository} --include '*.json' '*.txt' '*.model' --local-dir {beside[0]}; or give "
        "one: DiffusersBackend.from_single_file(file, config=folder)."
    )


def check_whole(path: Path, names: set[str]) -> None:
    """Refuse files that are no model: an adapter, or one component of a diffusers folder."""
    if names and all(any(part in name for part in ADAPTER) for name in names):
        raise InputValueError(
            f"{path} is an adapter (LoRA), which changes a model and is none; load the model with "
            "diffusers, then pipeline.load_lora_weights(file) and DiffusersBackend(pipeline)."
        )
    if (path.parent / "config.json").is_file() and not (path.parent / INDEX).is_file():
        raise InputValueError(
            f"{path} is one component of a pipeline, as config.json beside it says; give the "
            f"folder {path.parent.parent} instead."
        )


def _usual_repository(path: Path) -> str:
    """Return the Hub id of the model that diffusers takes a file to be made from.

    diffusers takes whatever it does not know for Stable Diffusion 1.
    """
    from diffusers.loaders import single_file_utils
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    try:
        empty = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        kind = single_file_utils.infer_diffusers_model_type(empty)
    except Exception:  # tensors of other shapes than any that diffusers knows
        return "OWNER/MODEL"
    if kind == "v1" and single_file_utils.CHECKPOINT_KEY_NAMES["v1"] not in shapes:
        return "OWNER/MODEL"
    known = single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]
    return known["pretrained_model_name_or_path"]
