"""From a name to a diffusers pipeline, trusting nothing that the folder says.

``model_index.json`` names the pipeline's class and, for each component, a library and a class.
It is read first: the class picks the family, the family says which components are needed, and
those must be of diffusers or transformers, with weights as safetensors. Only then does diffusers
load them. Components that classification never uses (the safety checker, image encoders) are
neither downloaded nor imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from ...errors import InputFileError, InputValueError, MissingFileError
from ...utils.quiet import quiet
from ...utils.validation import check_option
from ..families.registry import find_family
from .origin import INDEX, SINGLE_FILE_ADVICE, Origin, local_folder, read_index

LIBRARIES = ("diffusers", "transformers")
OFFLOAD = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
CONVERT_ADVICE = (
    "Weights in other formats can run code when loaded and are refused: load them where you trust "
    "them and save with pipeline.save_pretrained(folder, safe_serialization=True)."
)
# Errors of huggingface_hub, the special before the general, and what the user can do about each.
HUB_ADVICE = {
    "GatedRepoError": "is gated: accept its licence at https://huggingface.co/{name}, then log in "
    "with `hf auth login` or pass token=.",
    "RepositoryNotFoundError": "is no folder here and not on the Hub, or private: check the "
    "spelling; if it is private, log in with `hf auth login` or pass token=.",
    "RevisionNotFoundError": "has no such revision: check revision=.",
    "LocalEntryNotFoundError": "is no folder here, not in the cache, and the Hub cannot be "
    "reached: check the connection (and HF_HUB_OFFLINE), or give the path of a folder.",
    "OfflineModeIsEnabled": "is no folder here, not in the cache, and the Hub is switched off: "
    "unset HF_HUB_OFFLINE, or give the path of a folder.",
    "EntryNotFoundError": f"has no {INDEX} on the Hub, so it is not a diffusers pipeline; "
    f"{SINGLE_FILE_ADVICE}.",
}


@torch.inference_mode(False)  # weights must be ordinary tensors, whoever loads them
def load_pipeline(origin: Origin, only: Sequence[str] | None = None) -> Any:
    """A diffusers pipeline, checked before it is loaded, ready for inference.

    With ``only`` these components of it; by default all that classification uses, though not
    the text encoders if the origin says that they are loaded when needed.

    Raises
    ------
    OSError, ValueError
        As :func:`load_backend`.
    """
    import diffusers

    if origin.offload is not None:
        check_option("offload", origin.offload, OFFLOAD)
    folder = local_folder(origin)
    index_path = _hub_index(origin) if folder is None else folder / INDEX
    index = read_index(index_path, origin.name)
    family = find_family([index["_class_name"]], f"{origin.name} is a {index['_class_name']}")
    later = family.text_encoders if origin.free_text_encoder and only is None else ()
    parts = [
        name
        for name in (only or family.components)
        if name not in later
        and not (name in family.optional and index.get(name) in (None, [None, None]))
    ]
    _check_libraries(index, parts, origin.name)
    needed = [name for name in parts if name not in origin.options]
    if folder is None and origin.subfolder:
        folder = _download_subfolder(origin, needed)
    if folder is not None:
        _check_weights(folder, index, needed, origin.variant)

    with quiet():
        pipeline_class = getattr(diffusers, index["_class_name"])
    known = signature(pipeline_class.__init__).parameters
    unused = [
        name
        for name, entry in index.items()
        if name in known and isinstance(entry, list) and name not in parts
    ]
    with quiet(progress_bars=folder is None), _explained(origin.name):
        pipeline = pipeline_class.from_pretrained(
            origin.name if folder is None else str(folder),
            revision=origin.revision,
            variant=origin.variant,
            token=origin.token,
            dtype=origin.dtype,
            use_safetensors=True,
            **{**dict.fromkeys(unused), **origin.options},
        )
    if "id2label" in index:  # names of classes, which DiTPipeline reads and does not keep
        pipeline.register_to_config(id2label=index["id2label"])
    for name in parts:
        component = getattr(pipeline, name)
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    if family.denoiser in parts:  # channels last are faster in convolutions
        getattr(pipeline, family.denoiser).to(memory_format=torch.channels_last)
        _place(pipeline, origin)
    return pipeline


def _place(pipeline: Any, origin: Origin) -> None:
    """Move a pipeline to its device, or have its networks come to it one after the other."""
    if origin.offload is not None:
        device = {} if origin.device is None else {"device": origin.device}
        getattr(pipeline, OFFLOAD[origin.offload])(**device)
    elif origin.device is not None:
        pipeline.to(origin.device)


def _hub_index(origin: Origin) -> Path:
    """Download the index alone, before anything else."""
    import huggingface_hub

    cache = {k: v for k, v in origin.options.items() if k in ("cache_dir", "local_files_only")}
    with _explained(origin.name):
        return Path(
            huggingface_hub.hf_hub_download(
                origin.name,
                INDEX,
                subfolder=origin.subfolder,
                revision=origin.revision,
                token=origin.token,
                **cache,
            )
        )


def _download_subfolder(origin: Origin, needed: list[str]) -> Path:
    """Fetch a pipeline in a sub-folder of a repository, which diffusers has no way to name."""
    import huggingface_hub

    wanted = [f"{origin.subfolder}/{part}/*" for part in needed]
    with _explained(origin.name):
        root = huggingface_hub.snapshot_download(
            origin.name,
            revision=origin.revision,
            token=origin.token,
            cache_dir=origin.options.get("cache_dir"),
            local_files_only=origin.options.get("local_files_only", False),
            allow_patterns=[f"{origin.subfolder}/{INDEX}", *wanted],
            ignore_patterns=[f"*{suffix}" for suffix in PICKLE_SUFFIXES],
        )
    return Path(root) / str(origin.subfolder)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say what to do about an error of the Hub."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, errors.EntryNotFoundError) as error:
        for kind, advice in HUB_ADVICE.items():
            if isinstance(error, getattr(errors, kind)):
                raise InputFileError(f"{name} {advice.format(name=name)}") from error
        if "safetensors` weights" in str(error):
            raise InputValueError(f"{name} has no safetensors weights. {CONVERT_ADVICE}") from error
        raise


def _check_libraries(index: dict[str, Any], components: Sequence[str], name: str) -> None:
    """Needed components must be named, and be classes of diffusers or transformers."""
    for component in components:
        entry = index.get(component)
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, str]:
            raise InputValueError(
                f"{INDEX} of {name} names no {component}, which {index['_class_name']} needs; "
                "save the whole pipeline with pipeline.save_pretrained(...)."
            )
        if entry[0] not in LIBRARIES:
            raise InputValueError(
                f"{INDEX} of {name} takes {component} from {entry[0]!r} (class {entry[1]!r}); only "
                f"classes of {' and '.join(LIBRARIES)} are loaded, so that no other code is run. "
                "If you trust it, load it with diffusers and pass DiffusersBackend(pipeline)."
            )


def _check_weights(
    folder: Path, index: dict[str, Any], needed: list[str], variant: str | None
) -> None:
    """Needed components must have a folder, and networks weights as safetensors in it."""
    for component in needed:
        part, kind = folder / component, index[component][1]
        if not part.is_dir():
            raise MissingFileError(
                f"{folder} has no folder {component!r}, though its {INDEX} names one; copy or "
                "download it again in full."
            )
        if "Tokenizer" in kind or "Scheduler" in kind:
            continue
        files = sorted(path.name for path in part.iterdir())
        weights = [name for name in files if name.endswith(".safetensors")]
        pickles = [name for name in files if name.endswith(PICKLE_SUFFIXES)]
        if not weights and pickles:
            raise InputValueError(f"{part / pickles[0]} is not safetensors. {CONVERT_ADVICE}")
        if not weights:
            raise MissingFileError(f"{part} has no weights (*.safetensors); fetch it in full.")
        if variant is None and all(name.count(".") > 1 for name in weights):
            only = weights[0].split(".")[1].split("-")[0]
            raise InputValueError(
                f"{part} has weights of variant {only!r} only; load them with "
                f"DiffusersBackend.from_pretrained({str(folder)!r}, variant={only!r})."
            )
