"""Load a diffusers pipeline without running any code that its folder brings along.

``model_index.json`` names the pipeline's class and, for each component, a library and a class.
It is read first. The pipeline's class determines the family, and the family which components are
needed. Their classes (components.py) and files (files.py) are checked, a Hub id's after its
download; only then does diffusers load them, and no weight may be missing (complete.py).
Components that classification never uses (the safety checker, image encoders) are neither
downloaded nor imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...errors import InputFileError, InputValueError
from ...utils.display import short_repr
from ...utils.quiet import quiet
from ...utils.validation import check_option
from ..families.base import Family
from ..families.parts.class_names import names_of
from ..families.registry import find_family
from .beside import config_folder, file_of
from .complete import complete_weights, explained_failure
from .components import component_classes, is_dummy, unused_components
from .files import CONVERT_ADVICE, PICKLE_SUFFIXES, check_files
from .origin import INDEX, SINGLE_FILE_ADVICE, Origin, local_folder, read_index
from .single_file import load_single_file

OFFLOAD = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}
# Options of diffusers that run code or read other files than safetensors, and harmless values.
REFUSED: dict[str, tuple[Any, ...]] = {
    "custom_pipeline": (None,),
    "custom_revision": (None,),
    "trust_remote_code": (None, False),
    "use_flashpack": (None, False),
    "use_onnx": (None, False),
    "use_safetensors": (True,),
}
# Errors of huggingface_hub (subclasses before their base) and what the user can do about each.
HUB_ADVICE = {
    "GatedRepoError": "is gated: accept its licence at https://huggingface.co/{name}, then log in "
    "with `hf auth login` or pass token=.",
    "RepositoryNotFoundError": "is no folder here and not on the Hub, or private: check the "
    "spelling; if it is private, log in with `hf auth login` or pass token=.",
    "RevisionNotFoundError": "has no such revision: check revision=.",
    "LocalEntryNotFoundError": "is no folder here, not in the cache, and the Hub cannot be "
    "reached: check the connection (and HF_HUB_OFFLINE), or give the path of a folder.",
    "OfflineModeIsEnabled": "is no folder here, not in the cache, and HF_HUB_OFFLINE is set: "
    "unset it, or give the path of a folder.",
    "EntryNotFoundError": f"has no {INDEX} on the Hub, so it is not a diffusers pipeline; "
    f"{SINGLE_FILE_ADVICE}.",
}


@torch.inference_mode(False)  # weights must be ordinary tensors even if the caller infers
def load_pipeline(origin: Origin, only: Sequence[str] | None = None) -> Any:
    """Check a diffusers pipeline, then load it for inference.

    Parameters
    ----------
    origin : Origin
    only : sequence of str or None, default=None
        Names of the components to load. By default all that classification uses, except the
        text encoders if ``origin.free_text_encoder``.

    Returns
    -------
    diffusers.DiffusionPipeline

    Raises
    ------
    MissingFileError, InputFileError, InputValueError
        As :func:`~diffusion_classifier.backends.resolve.load_backend` raises them.
    """
    import diffusers

    if origin.offload is not None:
        check_option("offload", origin.offload, OFFLOAD)
    for name, harmless in REFUSED.items():
        value = origin.options.get(name, harmless[0])
        if not any(value is good for good in harmless):
            raise InputValueError(
                f"{name}={short_repr(value)} is refused, because only safetensors are read and no "
                "code of a model is run; if you trust this one, load it with diffusers and pass "
                "DiffusersBackend(pipeline)."
            )
    folder, index, family = _identify(origin)
    if "id2label" in index:
        names_of(index["id2label"])
    later = family.text_encoders if origin.free_text_encoder and only is None else ()
    parts = [
        name
        for name in ((*only, *family.always) if only else family.components)
        if name not in later
        and not (name in family.optional and index.get(name) in (None, [None, None]))
    ]
    with quiet():
        pipeline_class = getattr(diffusers, index["_class_name"])
    if is_dummy(pipeline_class):
        pipeline_class.from_pretrained(origin.name)  # raises
    encoders = [name for name in later if name not in family.optional]  # loaded when needed
    used = [name for name in family.components if name in (*parts, *encoders)]
    classes: dict[str, Any] = component_classes(index, used, family, pipeline_class, origin.name)
    needed = [name for name in parts if name not in origin.options]
    halves = [name for name in needed if index[name][1].endswith("Processor")]
    if halves:  # of which only the part for texts is read, as the rest may need torchvision
        from ..families.parts.processors import half_like  # transformers is slow to import

        classes |= {name: half_like(classes[name].__name__) for name in halves}
    left_out = unused_components(index, parts, pipeline_class, origin.name)
    for name in set(left_out) - set(family.components):
        if origin.options.get(name) is not None:
            raise InputValueError(
                f"{name} was given, but is not used to classify; leave it out, or load the "
                "pipeline with diffusers and pass DiffusersBackend(pipeline)."
            )
    options: dict[str, Any] = {
        "revision": origin.revision,
        "variant": origin.variant,
        "token": origin.token,
        "use_safetensors": True,
        **dict.fromkeys(left_out),
        **origin.options,
    }
    is_local = folder is not None
    with quiet(progress_bars=not is_local), explained_hub(origin.name):
        if folder is None and origin.subfolder:
            folder = _download_subfolder(origin, needed)
        elif folder is None:
            folder = Path(pipeline_class.download(origin.name, **options))
    if file_of(origin):
        pipeline = load_single_file(origin, folder, classes, needed, left_out, pipeline_class)
    else:
        for name in needed:
            check_files(folder, name, classes[name], origin.variant)
        with (
            quiet(progress_bars=not is_local),
            complete_weights(folder, origin.name),
            explained_failure(f"{origin.name} cannot be loaded as {index['_class_name']}"),
        ):
            read: dict[str, Any] = {n: classes[n].from_pretrained(folder / n) for n in halves}
            options |= {n: half if n in family.always else None for n, half in read.items()}
            pipeline = pipeline_class.from_pretrained(str(folder), dtype=origin.dtype, **options)
            pipeline.register_modules(**read)  # whose classes diffusers may be unable to check
    if not is_local:
        pipeline.register_to_config(_name_or_path=origin.name)  # not the cache's folder
    if "id2label" in index:  # class names, which DiTPipeline reads but does not keep
        pipeline.register_to_config(id2label=index["id2label"])
    for name in parts:
        component = getattr(pipeline, name)
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    if family.denoiser in parts:
        if origin.device is None or torch.device(origin.device).type == "cpu":
            # Convolutions are faster on CPUs with channels last. On CUDA they are slower, unless
            # the network is compiled (docs/benchmarks/gpu.md).
            getattr(pipeline, family.denoiser).to(memory_format=torch.channels_last)
        _place(pipeline, origin)
    return pipeline


def half_precision(origin: Origin) -> torch.dtype:
    """Return the dtype of 16 bits in which a pipeline should compute on the CUDA device here.

    Raises
    ------
    MissingFileError, InputFileError, InputValueError
        If there is no pipeline of a known family.
    """
    dtype = _identify(origin)[2].half_dtype
    if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32  # float16 would overflow
    return dtype


def _identify(origin: Origin) -> tuple[Path | None, dict[str, Any], Family]:
    """Return a pipeline's folder, if it is one here, its index, and the family it belongs to."""
    folder = config_folder(origin) if file_of(origin) else local_folder(origin)
    index_path = _hub_index(origin) if folder is None else folder / INDEX
    index = read_index(index_path, origin.name)
    name = index["_class_name"]
    return folder, index, find_family([name], f"{origin.name} is a {name}")


def _place(pipeline: Any, origin: Origin) -> None:
    """Move a pipeline to its device, or enable offloading to main memory."""
    if origin.offload is not None:
        device = {} if origin.device is None else {"device": origin.device}
        try:
            getattr(pipeline, OFFLOAD[origin.offload])(**device)
        except RuntimeError as error:
            if "requires accelerator" not in str(error):
                raise
            raise InputValueError(
                f"offload={origin.offload!r} needs an accelerator to compute on (CUDA, MPS, ...), "
                "and there is none here; leave it out."
            ) from error
    elif origin.device is not None:
        pipeline.to(origin.device)


def _hub_index(origin: Origin) -> Path:
    """Download only the index and return its path."""
    import huggingface_hub

    cache = {k: v for k, v in origin.options.items() if k in ("cache_dir", "local_files_only")}
    with explained_hub(origin.name):
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
    """Download a pipeline from a repository's subfolder, for which diffusers has no option."""
    import huggingface_hub

    wanted = [f"{origin.subfolder}/{part}/*" for part in needed]
    with explained_hub(origin.name):
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
def explained_hub(name: str) -> Iterator[None]:
    """Replace errors of the Hub by ones that say what to do."""
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
