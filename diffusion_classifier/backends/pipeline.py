"""Any diffusers pipeline as a noise predictor.

One class serves them all; what differs between Stable Diffusion, Flux, DiT, ... is in their
:class:`~diffusion_classifier.backends.families.Family`.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError
from ..utils.display import PlainText
from .base import Backend, Conditioning
from .families.edm import preconditioned
from .families.registry import find_family
from .families.text import padded_alike, warn_of_unknown_words
from .loading.cache import cached
from .loading.identity import hash_configs
from .loading.load import load_pipeline
from .loading.origin import Origin, resolve_name

PROMPTS_PER_BATCH = 64  # through the text encoder at once


class DiffusersBackend(Backend):
    """A diffusers pipeline as a noise predictor.

    The pipeline is used as it is, never moved or cast: LoRA weights, device, dtype, quantised
    components, attention backends and offload that you set with diffusers' own calls are
    honoured. Its scheduler is read once, when the backend is made; only how noise was added in
    training matters, not the scheduler's class.

    Copies and clones share the weights. Pickles of a backend made by :meth:`from_pretrained`
    hold the folder or Hub id instead, and load again on first use, once per process.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Of a known family; the error for any other lists them.
    image_shape : tuple of int or None, default=None
        Shape of the pictures whose flattened rows X holds, such as (32, 32, 3); None refuses rows.
    free_text_encoder : bool, default=False
        Whether to drop the text encoders once prompts are encoded, so that the denoiser has the
        memory to itself. A pipeline made in memory loses them for good (its ``text_encoder``
        becomes None); :meth:`from_pretrained` loads them whenever prompts are to be encoded.

    Attributes
    ----------
    schedule, prediction_type, learned_variance, text_conditional, unconditional_prompt
    default_template, image_size, device, dtype
        As in :class:`~diffusion_classifier.backends.Backend`.

    Raises
    ------
    TypeError
        If it is a name and not a pipeline.
    ValueError
        If the pipeline is of no known family, lacks a component, or needs more than the prompt.

    Examples
    --------
    A model on the Hub with a LoRA, its networks left on the CPU until they are needed::

        pipeline = StableDiffusionPipeline.from_pretrained("owner/model", dtype=torch.float16)
        pipeline.load_lora_weights("owner/lora")
        pipeline.enable_model_cpu_offload()
        backend = DiffusersBackend(pipeline)

    >>> from diffusion_classifier.backends import DiffusersBackend
    >>> DiffusersBackend("owner/model")
    Traceback (most recent call last):
    diffusion_classifier.errors.InputTypeError: load a folder or Hub id with \
from_pretrained('owner/model').
    """

    _pipeline: Any
    _pickled_config: str  # of a backend out of a pickle

    def __init__(
        self,
        pipeline: Any,
        *,
        image_shape: tuple[int, ...] | None = None,
        free_text_encoder: bool = False,
    ) -> None:
        self.free_text_encoder = free_text_encoder
        self.pipeline = pipeline
        self.image_shape = image_shape

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike,
        *,
        revision: str | None = None,
        variant: str | None = None,
        token: str | bool | None = None,
        subfolder: str | None = None,
        dtype: Any = None,
        device: Any = None,
        image_shape: tuple[int, ...] | None = None,
        offload: str | None = None,
        free_text_encoder: bool = False,
        **options: Any,
    ) -> DiffusersBackend:
        """Load a pipeline with diffusers and wrap it.

        Weights must be safetensors; the safety checker and other components that classification
        does not use are not loaded.

        Parameters
        ----------
        path_or_id : str or path-like
            A folder that holds ``model_index.json``, or a Hub id.
        revision : str, optional
            Branch, tag or commit on the Hub.
        variant : str, optional
            Such as ``"fp16"``: which of several sets of weight files.
        token : str or bool, optional
            For gated or private models; left out of pickles.
        subfolder : str, optional
            Where in the folder or repository the pipeline is.
        dtype : torch.dtype or dict, optional
            What networks compute in, or ``{component: dtype}``. By default float32.
        device : torch.device or str, optional
            Where to put the pipeline. By default it stays where diffusers loads it.
        image_shape : tuple of int or None, default=None
            Shape of the pictures whose flattened rows X holds.
        offload : {"model", "sequential"}, optional
            Keep networks in main memory and bring each to ``device`` (by default the GPU), whole
            or layer by layer, while it computes; as diffusers' ``enable_model_cpu_offload`` and
            ``enable_sequential_cpu_offload`` do.
        free_text_encoder : bool, default=False
            Whether to load the text encoders only when prompts are to be encoded, and drop them
            afterwards.
        **options
            Further arguments of diffusers' ``from_pretrained``.

        Returns
        -------
        DiffusersBackend

        Raises
        ------
        OSError, ValueError
            As :func:`~diffusion_classifier.backends.resolve.load_backend`.
        """
        backend = cls.from_origin(
            Origin(
                resolve_name(path_or_id),
                revision=revision,
                variant=variant,
                token=token,
                subfolder=subfolder,
                # None would leave each component in the dtype that it was saved in
                dtype=torch.float32 if dtype is None else dtype,
                device=None if device is None else str(torch.device(device)),
                offload=offload,
                free_text_encoder=free_text_encoder,
                options=options,
            )
        )
        backend.image_shape = image_shape
        return backend

    @classmethod
    def from_origin(cls, origin: Origin) -> DiffusersBackend:
        """Load the pipeline that an Origin describes, and wrap it."""
        backend = cls(load_pipeline(origin), free_text_encoder=origin.free_text_encoder)
        backend._origin = origin
        return backend

    @property
    def pipeline(self) -> Any:
        """The pipeline; loaded again first if this backend came out of a pickle."""
        if self._pipeline is None:
            assert self._origin is not None  # others cannot be pickled
            loaded = cached(self._origin, DiffusersBackend.from_origin)
            if loaded._config_sha256() != self._pickled_config:
                raise InputValueError(
                    f"{self._origin.name} is not the model that this was pickled with: its "
                    "configuration has changed, or an adapter (LoRA) was loaded into that one, "
                    "which pickles leave out: fuse it and save the pipeline. Give the same model, "
                    "or fit again."
                )
            self._pipeline = loaded.pipeline
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        if isinstance(pipeline, str | os.PathLike):
            raise InputTypeError(
                f"load a folder or Hub id with from_pretrained({str(pipeline)!r})."
            )
        names = [cls.__name__ for cls in type(pipeline).__mro__]
        family = find_family(names, f"this is a {names[0]}")
        spare = {*family.optional, *(family.text_encoders if self.free_text_encoder else ())}
        for name in family.components:
            if getattr(pipeline, name, None) is None and name not in spare:
                raise InputValueError(
                    f"the pipeline has no {name}; set pipeline.{name} and try again."
                )
        family.check(pipeline)
        family = preconditioned(family, pipeline)
        self.prediction_type = family.prediction_type(pipeline)
        self.schedule = family.schedule(pipeline)
        self.text_conditional = family.text_conditional
        self.learned_variance = family.learned_variance(pipeline)
        self.unconditional_prompt = family.unconditional_prompt
        self.default_template = family.default_template
        self.image_size = family.image_size(pipeline)
        self._as_read = {"scheduler": dict(pipeline.scheduler.config)}  # it may be exchanged
        self._family = family
        self._pipeline = pipeline
        self._pipeline_class = names[0]
        self._origin: Origin | None = None

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the denoiser runs, also while it is offloaded to another device."""
        return self.pipeline._execution_device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """What the denoiser computes in."""
        return getattr(self.pipeline, self._family.denoiser).dtype

    class_by_position = False  # a prompt is text, or the name or index of a class

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Latents of images.

        Parameters
        ----------
        images : Tensor of shape (B, 3, H, W)
            In [-1, 1]; sides divisible by the autoencoder's downsampling factor.

        Returns
        -------
        Tensor of shape (B, C, h, w), dtype float32
            On ``device``; the mode of the posterior, so that nothing is random.

        Raises
        ------
        ValueError
            If a side is not divisible.
        """
        return self._family.encode_images(self.pipeline, images)

    @torch.no_grad()
    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """Encode prompts with the pipeline's own text encoders, or look up the classes they name.

        Parameters
        ----------
        labels : sequence of length P
            Not used: the prompts say it all.
        prompts : sequence of str of length P

        Returns
        -------
        Conditioning of length P

        Raises
        ------
        ValueError
            If a class-conditional model knows no class of that name or index, or the text
            encoders were freed and cannot be loaded again.

        Warns
        -----
        UserWarning
            Of prompts longer than the text encoder takes, or with words it does not know.
        """
        prompts = list(prompts)
        if self.known_words is not None:
            warn_of_unknown_words(prompts, self.known_words)
        with self._text_encoders() as pipeline:
            parts = [
                self._family.encode_prompts(pipeline, prompts[i : i + PROMPTS_PER_BATCH])
                for i in range(0, len(prompts), PROMPTS_PER_BATCH)
            ]
        return Conditioning.concatenate(padded_alike(parts))

    @contextmanager
    def _text_encoders(self) -> Iterator[Any]:
        """The pipeline with its text encoders: loaded if they are not, freed after if asked to."""
        pipeline, family = self.pipeline, self._family
        freed = [name for name in family.text_encoders if getattr(pipeline, name) is None]
        if set(freed) - set(family.optional):
            if self._origin is None:
                raise InputValueError(
                    f"the pipeline has no {freed[0]} to encode prompts with: with "
                    "free_text_encoder=True it was dropped after an earlier fit; set "
                    f"pipeline.{freed[0]} again, or use DiffusersBackend.from_pretrained(folder, "
                    "free_text_encoder=True), which loads it whenever it is needed."
                )
            loaded = load_pipeline(self._origin, only=family.text_encoders)
            for name in freed:
                encoder = getattr(loaded, name)
                if encoder is not None and encoder.device != self.device:
                    encoder.to(self.device)
                setattr(pipeline, name, encoder)
        try:
            yield pipeline
        finally:
            if self.free_text_encoder:
                for name in family.text_encoders:
                    setattr(pipeline, name, None)

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """The denoiser's output for noised latents [R, C, h, w], timesteps [R], R conditions."""
        return self._family.forward(self.pipeline, z, t, condition)[:, : z.shape[1]]

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """The denoiser's output and learned variance, both [R, C, h, w], if it has one."""
        if not self.learned_variance:
            return super().forward_with_variance(z, t, condition)
        output, variance = self._family.forward(self.pipeline, z, t, condition).chunk(2, 1)
        return output, variance

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; scikit-learn prints those of ``deep=False``, with a short pipeline.

        Asking loads nothing: until a backend out of a pickle has loaded its pipeline, it is None.
        """
        pipeline = self._pipeline if deep else PlainText(f"{self._pipeline_class} {self._where()}")
        return {
            "pipeline": pipeline,
            "image_shape": self.image_shape,
            "free_text_encoder": self.free_text_encoder,
        }

    def saved_origin(self) -> dict[str, Any] | None:
        place = self._origin.to_saved() if self._origin else None
        return None if place is None else place | {"image_shape": self.image_shape}

    def _where(self) -> str:
        return repr(self._origin.name) if self._origin else "in memory"

    def identity(self) -> dict[str, str | None]:
        """Which model this is: where it is from, and a hash of its components' configurations.

        Text encoders do not count, as they may be freed, and weights are not read; adapters
        (LoRA) that are not fused count by name.
        """
        origin = self._origin
        return {
            "name": origin.name if origin else self.pipeline.config.get("_name_or_path"),
            "revision": origin.revision if origin else None,
            "subfolder": origin.subfolder if origin else None,
            "pipeline_class": self._pipeline_class,
            "config_sha256": self._config_sha256(),
        }

    def _config_sha256(self) -> str:
        if self._pipeline is None:  # out of a pickle
            return self._pickled_config
        parts = [p for p in self._family.components if p not in self._family.text_encoders]
        return hash_configs({p: getattr(self._pipeline, p) for p in parts} | self._as_read)

    def __copy__(self) -> DiffusersBackend:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict) -> DiffusersBackend:
        """Weights are shared: nothing here ever changes them."""
        return copy.copy(self)

    def __sklearn_clone__(self) -> DiffusersBackend:
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        if self._origin is None:
            raise pickle.PicklingError(
                f"this {self._pipeline_class} was made in memory, so a pickle could not load it "
                "again; save it with pipeline.save_pretrained(folder) and use "
                "DiffusersBackend.from_pretrained(folder)."
            )
        origin = self._origin
        if isinstance(origin.token, str):
            origin = replace(origin, token=None)  # a secret: the reader's own login serves
        config = self._config_sha256()
        return {**self.__dict__, "_pipeline": None, "_origin": origin, "_pickled_config": config}

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return f"DiffusersBackend({self._pipeline_class}, {self._where()})"
