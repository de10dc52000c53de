"""Make a backend from the ``backend`` parameter: None, a name, a pipeline or a Backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from sklearn.base import clone

from ..errors import InputTypeError
from ..utils.devices import resolve_device, resolve_devices, resolve_dtype
from ..utils.display import short_repr
from .base import Backend
from .embedded import load_embedded
from .loading.cache import cached
from .loading.load import half_precision
from .loading.origin import EMBEDDED, Origin, resolve_name
from .pipeline import DiffusersBackend


class Pipeline(Protocol):
    """A diffusers pipeline as type checkers see it; diffusers itself is not imported."""

    @property
    def components(self) -> dict[str, Any]: ...


ALLOWED = "None, the path or Hub id of a diffusers model, a pipeline or a Backend"
SHIPPED = {EMBEDDED: load_embedded}  # loaders of the models in this package, by name


def resolve_backend(backend: Any, device: Any, dtype: Any) -> Backend:
    """Make a noise predictor from None (the embedded model), a name, a pipeline or a Backend.

    Models named by a path or Hub id are loaded once per process. A Backend is cloned; the clone
    shares its weights, device and dtype, so ``device`` and ``dtype`` have no effect on it. A
    diffusers pipeline is wrapped as it is. Of several devices, the network is loaded on the first.

    Raises
    ------
    InputTypeError
        If ``backend`` is anything else.
    InputError
        If a named model cannot be loaded; see :func:`load_backend`.
    """
    backend = wrap_pipeline(backend)
    device = resolve_devices(device)[0]
    is_auto = isinstance(dtype, str) and dtype == "auto"
    dtype = resolve_dtype(dtype, device)
    if isinstance(backend, Backend):
        return clone(backend)
    if backend is not None and not isinstance(backend, str | os.PathLike):
        raise InputTypeError(f"backend must be {ALLOWED}{_advice(backend)}")
    if backend is None:
        return load_embedded(device, dtype)
    if is_auto and device.type == "cuda":
        dtype = half_precision(Origin(resolve_name(backend)))
    return load_backend(os.fspath(backend), device, dtype)


def wrap_pipeline(backend: Any) -> Any:
    """Return a diffusers pipeline as a DiffusersBackend, and anything else as it is."""
    bases = type(backend).__mro__
    is_pipeline = any(cls.__name__ == "DiffusionPipeline" for cls in bases)
    return DiffusersBackend(backend) if is_pipeline else backend


def _advice(backend: Any) -> str:
    """Say what a value that is no backend is, and how to make one of it."""
    if isinstance(backend, type):
        name = backend.__name__
        return f", not the class {name}. Make an instance of it: {name}(...)."
    if callable(backend):
        return (
            f", not {'a network' if isinstance(backend, torch.nn.Module) else 'a function'} "
            f"({getattr(backend, '__qualname__', type(backend).__name__)}) alone, which does not "
            "say how noise was added and what it predicts. Wrap it: FunctionBackend(network, "
            "schedule=alphas_cumprod, prediction_type=...), see docs/adapters.md; or pass the "
            "whole pipeline that it is a part of."
        )
    return f", not {short_repr(backend)}."


def load_backend(
    name: str | os.PathLike, device: Any = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusersBackend:
    """Load a diffusers folder or Hub id as a backend, once per process.

    Parameters
    ----------
    name : str or path-like
        A folder with a ``model_index.json``, or a Hub id such as ``"owner/model"``.
    device : torch.device or str, default="cpu"
    dtype : torch.dtype, default=torch.float32
        Dtype in which the network computes. Errors are float32 in any case.

    Returns
    -------
    DiffusersBackend
        Later calls with the same name, device and dtype return the same object, unless the folder
        has changed or :func:`~diffusion_classifier.backends.clear_model_cache` was called.

    Raises
    ------
    MissingFileError
        If the folder, a component's folder or its weights do not exist.
    InputFileError
        If the Hub does not provide the model.
    InputValueError
        If it is not a diffusers pipeline of a known family, would run its own code, or its
        weights are not safetensors.

    Examples
    --------
    >>> from diffusion_classifier.backends.resolve import load_backend
    >>> load_backend("no/such/folder")
    Traceback (most recent call last):
    diffusion_classifier.errors.MissingFileError: no folder 'no/such/folder'; give a folder that \
holds model_index.json, or a Hub id 'owner/model'.
    """
    origin = Origin(resolve_name(name), device=str(torch.device(device)), dtype=dtype)
    return cached(origin, DiffusersBackend.from_origin)


def rebuild_backend(saved: Mapping[str, Any]) -> Backend:
    """Load the backend that ``saved_origin`` described.

    Parameters
    ----------
    saved : mapping
        Result of ``saved_origin``, with the keys of
        :data:`~diffusion_classifier.backends.loading.origin.SAVED_ORIGIN`; device and dtype may be
        given by name. No other key has an effect, so no option that runs code can be among them.

    Returns
    -------
    Backend
        A model of this package also gets its own template, vocabulary and timestep proposal.
    """
    name, dtype = saved["name"], resolve_dtype(saved["dtype"], torch.device("cpu"))
    device = None if saved["device"] is None else resolve_device(saved["device"])
    if name in SHIPPED:
        return SHIPPED[name](device or "cpu", dtype, image_shape=saved["image_shape"])
    if saved.get("config") is not None:
        return DiffusersBackend.from_single_file(
            name,
            config=saved["config"],
            dtype=dtype,
            device=device,
            image_shape=saved["image_shape"],
        )
    return DiffusersBackend.from_pretrained(
        name,
        revision=saved["revision"],
        variant=saved["variant"],
        subfolder=saved["subfolder"],
        dtype=dtype,
        device=device,
        image_shape=saved["image_shape"],
        offload=saved["offload"],
        free_text_encoder=saved["free_text_encoder"],
    )
