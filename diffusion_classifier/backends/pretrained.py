"""Load a pipeline by its folder or Hub id, with options of loading."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch

from .base import Backend
from .compiling import Compile, check_compile
from .loading.load import load_pipeline
from .loading.origin import Origin, resolve_name


class FromPretrained(Backend):
    """Constructors of a backend that wraps a pipeline.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
    free_text_encoder : bool, default=False
    """

    _origin: Origin | None

    def __init__(self, pipeline: Any, *, free_text_encoder: bool = False) -> None:
        self.pipeline, self.free_text_encoder = pipeline, free_text_encoder

    @abstractmethod
    def compile(self, mode: Compile = True) -> Self:
        """Compile the denoiser."""

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike,
        *,
        revision: str | None = None,
        variant: str | None = None,
        token: str | bool | None = None,
        subfolder: str | None = None,
        dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
        device: torch.device | str | None = None,
        image_shape: tuple[int, ...] | None = None,
        offload: Literal["model", "sequential"] | None = None,
        free_text_encoder: bool = False,
        compile: Compile = False,
        **options: Any,
    ) -> Self:
        """Load a pipeline with diffusers and wrap it.

        Weights must be safetensors. Components that classification does not use, such as the
        safety checker, are not loaded.

        Parameters
        ----------
        path_or_id : str or path-like
            Folder that holds ``model_index.json``, or a Hub id.
        revision : str, optional
            Branch, tag or commit on the Hub.
        variant : str, optional
            Suffix of the weight files to load, such as ``"fp16"``.
        token : str or bool, optional
            Hub token for gated or private models. Pickles do not contain it.
        subfolder : str, optional
            Subfolder of the folder or repository that holds the pipeline.
        dtype : torch.dtype or dict, optional
            Dtype in which networks compute, or ``{component: dtype}``. By default float32.
        device : torch.device or str, optional
            Device of the pipeline. By default it stays where diffusers loads it.
        image_shape : tuple of int or None, default=None
            Shape of the images whose flattened rows X holds; None refuses rows.
        offload : {"model", "sequential"}, optional
            Keep networks in main memory and move them to ``device`` (by default the GPU) only
            while they compute, one network ("model") or layer ("sequential") at a time; see
            diffusers' ``enable_model_cpu_offload`` and ``enable_sequential_cpu_offload``.
        free_text_encoder : bool, default=False
            Whether to load the text encoders only to encode prompts and drop them afterwards.
        compile : bool, "regional", "reduce-overhead" or "max-autotune", default=False
            Compile the denoiser with ``torch.compile``, for long runs on a GPU. The first batch of
            each length takes a minute or so. True compiles the whole network; "regional" its
            repeated blocks alone, in a fraction of the time and for a smaller gain; the others
            are modes of ``torch.compile``. Saved classifiers do not remember it.
        **options
            Further arguments of diffusers' ``from_pretrained``; none may run code or read pickles.

        Returns
        -------
        DiffusersBackend

        Raises
        ------
        MissingFileError, InputFileError, InputValueError
            As :func:`~diffusion_classifier.backends.resolve.load_backend` raises them, or if
            ``compile`` is unknown.
        """
        check_compile(compile)
        backend = cls.from_origin(
            Origin(
                resolve_name(path_or_id),
                revision=revision,
                variant=variant,
                token=token,
                subfolder=subfolder,
                # with None, diffusers keeps the dtype in which each component was saved
                dtype=torch.float32 if dtype is None else dtype,
                device=None if device is None else str(torch.device(device)),
                offload=offload,
                free_text_encoder=free_text_encoder,
                compile=compile,
                options=options,
            )
        )
        backend.image_shape = image_shape
        return backend

    @classmethod
    def from_single_file(
        cls,
        path: str | os.PathLike,
        *,
        config: str | os.PathLike | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> Self:
        """Load a whole model from one safetensors file, as Civitai and ComfyUI share them.

        Nothing is downloaded. Networks that the file does not hold are read from ``config``.

        Parameters
        ----------
        path : str or path-like
            File such as ``model.safetensors``.
        config : str or path-like, optional
            Folder with ``model_index.json``, the configurations of the components, tokenizers and
            scheduler. By default the folder ``model`` or ``config`` beside the file, or the file's
            own folder.
        dtype : torch.dtype, default=torch.float32
            Dtype in which networks compute, whatever the file's.
        device : torch.device or str, optional
            Device of the pipeline; by default the CPU.
        image_shape : tuple of int or None, default=None
            Shape of the images whose flattened rows X holds; None refuses rows.

        Returns
        -------
        DiffusersBackend

        Raises
        ------
        MissingFileError
            If there is no such file, or no config folder.
        InputFileError, InputValueError
            If the file is no safetensors, is damaged, lacks tensors, holds only an adapter, or is
            of another architecture than ``config``.

        Examples
        --------
        >>> from diffusion_classifier.backends import DiffusersBackend
        >>> DiffusersBackend.from_single_file("none.safetensors")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        diffusion_classifier.errors.MissingFileError: no file '...none.safetensors'; check its path.
        """
        place = Path(path).expanduser().absolute()
        backend = cls.from_origin(
            Origin(
                resolve_name(place) if place.is_file() else str(place),
                dtype=dtype,
                device=None if device is None else str(torch.device(device)),
                config=None if config is None else str(Path(config).expanduser().absolute()),
            )
        )
        backend.image_shape = image_shape
        return backend

    @classmethod
    def from_origin(cls, origin: Origin) -> Self:
        """Load the pipeline that an Origin describes, and wrap it."""
        backend = cls(load_pipeline(origin), free_text_encoder=origin.free_text_encoder)
        backend._origin = origin
        if origin.compile is not False:
            backend.compile(origin.compile)
        return backend
