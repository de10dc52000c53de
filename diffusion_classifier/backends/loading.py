"""From a name to a diffusers pipeline, trusting nothing that the folder says.

``model_index.json`` names the pipeline's class and, for each component, a library and a class.
It is read first: the class picks the family, the family says which components are needed, and
those must be of diffusers or transformers, with weights as safetensors. Only then does diffusers
load them. Components that classification never uses (the safety checker, image encoders) are
neither downloaded nor imported.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..validation import check_option
from .embedded import EMBEDDED, embedded_path
from .families import find_family
from .family import quiet

if TYPE_CHECKING:
    from .pipeline import DiffusersBackend

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
OFFLOAD = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/\w[\w.-]*")
CHECKPOINT_SUFFIXES = (".safetensors", ".ckpt")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
SINGLE_FILE_ADVICE = (
    "load a single-file checkpoint with diffusers.StableDiffusionPipeline.from_single_file(...) "
    "and pass DiffusersBackend(pipeline)"
)
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


@dataclass(frozen=True)
class Origin:
    """Where a pipeline comes from and how it was loaded: enough to load it again.

    Attributes
    ----------
    name : str
        Absolute path of a folder, Hub id, or ``EMBEDDED``.
    revision, variant, token, subfolder, dtype, device, offload, free_text_encoder, options
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
    options: dict[str, Any] = field(default_factory=dict)


def load_backend(
    name: str | os.PathLike, device: Any = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusersBackend:
    """The backend for a diffusers folder or Hub id, loaded once per process.

    Parameters
    ----------
    name : str or path-like
        A folder with a ``model_index.json``, or a Hub id such as ``"owner/model"``.
    device : torch.device or str, default="cpu"
    dtype : torch.dtype, default=torch.float32
        What the network computes in; errors are float32 in any case.

    Returns
    -------
    DiffusersBackend
        The same object whenever folder or id, device and dtype are the same, and the folder was
        not written over; until :func:`~diffusion_classifier.backends.clear_model_cache`.

    Raises
    ------
    OSError
        If the folder does not exist or misses a component, or the Hub id cannot be reached.
    ValueError
        If it is not a diffusers pipeline of a known family, would run its own code, or its
        weights are not safetensors.

    Examples
    --------
    >>> from diffusion_classifier.backends.loading import load_backend
    >>> load_backend("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: no folder 'no/such/folder'; give a folder that holds model_index.json, or a \
Hub id 'owner/model'.
    """
    from .cache import cached_backend  # which imports this module

    return cached_backend(Origin(resolve_name(name), device=str(torch.device(device)), dtype=dtype))


def resolve_name(name: str | os.PathLike) -> str:
    """Absolute path of an existing folder, or a Hub id as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such folder and the name cannot be a Hub id.
    ValueError
        If it is a file.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if path.is_file():
        advice = SINGLE_FILE_ADVICE if path.suffix in CHECKPOINT_SUFFIXES else "give its folder"
        raise ValueError(f"{path} is a file, not a folder with a {INDEX}; {advice}.")
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        return name
    raise FileNotFoundError(
        f"no folder {str(path)!r}; give a folder that holds {INDEX}, or a Hub id 'owner/model'."
    )


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


def local_folder(origin: Origin) -> Path | None:
    """The pipeline's folder on this machine; None if the name is a Hub id."""
    if origin.name == EMBEDDED:
        return embedded_path()
    root = Path(origin.name)
    if not root.is_absolute():
        return None
    folder = root / (origin.subfolder or "")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}; check its path (and subfolder=).")
    if not (folder / INDEX).is_file():
        raise ValueError(f"{folder} has no {INDEX}: {_describe_folder(folder)}")
    return folder


def _describe_folder(folder: Path) -> str:
    """What a folder without an index is, and what to do with it."""
    names = sorted(path.name for path in folder.iterdir())
    for config in ("config.json", "scheduler_config.json"):
        if config in names:
            content = json.loads((folder / config).read_text(encoding="utf-8"))
            kind = content.get("_class_name") or ", ".join(content.get("architectures") or [])
            return f"it is one component ({kind}); give the folder of the pipeline above it."
    checkpoints = [name for name in names if name.endswith(CHECKPOINT_SUFFIXES)]
    if checkpoints:
        return f"it holds {checkpoints[0]}; {SINGLE_FILE_ADVICE}."
    holds = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"it holds {holds or 'nothing'}; give a folder that pipeline.save_pretrained(...) wrote."


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
                raise OSError(f"{name} {advice.format(name=name)}") from error
        if "safetensors` weights" in str(error):
            raise ValueError(f"{name} has no safetensors weights. {CONVERT_ADVICE}") from error
        raise


def read_index(path: Path, name: str) -> dict[str, Any]:
    """The index as a dict with a plain class name."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{INDEX} of {name} is not JSON ({error}); fetch it again.") from error
    class_name = index.get("_class_name") if isinstance(index, dict) else None
    if isinstance(class_name, list):
        raise ValueError(
            f"{INDEX} of {name} asks for a pipeline with code of its own ({class_name}), which is "
            "never run; load it with diffusers if you trust it and wrap it with FunctionBackend."
        )
    if not isinstance(class_name, str):
        raise ValueError(f"{INDEX} of {name} names no pipeline class (_class_name).")
    return index


def _check_libraries(index: dict[str, Any], components: Sequence[str], name: str) -> None:
    """Needed components must be named, and be classes of diffusers or transformers."""
    for component in components:
        entry = index.get(component)
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, str]:
            raise ValueError(
                f"{INDEX} of {name} names no {component}, which {index['_class_name']} needs; "
                "save the whole pipeline with pipeline.save_pretrained(...)."
            )
        if entry[0] not in LIBRARIES:
            raise ValueError(
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
            raise FileNotFoundError(
                f"{folder} has no folder {component!r}, though its {INDEX} names one; copy or "
                "download it again in full."
            )
        if "Tokenizer" in kind or "Scheduler" in kind:
            continue
        files = sorted(path.name for path in part.iterdir())
        weights = [name for name in files if name.endswith(".safetensors")]
        pickles = [name for name in files if name.endswith(PICKLE_SUFFIXES)]
        if not weights and pickles:
            raise ValueError(f"{part / pickles[0]} is not safetensors. {CONVERT_ADVICE}")
        if not weights:
            raise FileNotFoundError(f"{part} has no weights (*.safetensors); fetch it in full.")
        if variant is None and all(name.count(".") > 1 for name in weights):
            only = weights[0].split(".")[1].split("-")[0]
            raise ValueError(
                f"{part} has weights of variant {only!r} only; load them with "
                f"DiffusersBackend.from_pretrained({str(folder)!r}, variant={only!r})."
            )
