"""Diffusers pipelines as noise predictors.

One class serves all pipelines. Whatever differs between Stable Diffusion, Flux, DiT, ... is in
their :class:`~diffusion_classifier.backends.families.Family`.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError
from ..utils.display import PlainText
from .base import Conditioning
from .compiling import Compile, compile_denoiser, is_compiled
from .families.edm import preconditioned
from .families.parts.checks import check_components
from .families.parts.text import one_truncation_warning, padded_alike, warn_of_unknown_words
from .families.registry import find_family
from .loading.cache import cached
from .loading.origin import Origin
from .model import ModelState, PipelineModel
from .pretrained import FromPretrained
from .text_encoders import load_text_encoders

PROMPTS_PER_BATCH = 64  # of the text encoders


class DiffusersBackend(FromPretrained):
    """Noise predictor made from a diffusers pipeline.

    The pipeline is used as it is and never moved or cast, so LoRA weights, device, dtype,
    quantised components, attention backends and offload that you set with diffusers take effect.
    Its scheduler is read once, when the backend is made, and only for the way noise was added in
    training; the scheduler's class does not matter.

    Change the pipeline before ``fit``. A classifier refuses to predict once adapters, their scales,
    weights or configurations have changed; dtype, device, memory format and compilation may change.
    Step caches (``enable_cache``) are always refused, as they make errors depend on earlier calls.

    Copies and clones share the weights. A pickle of a backend made by :meth:`from_pretrained`
    holds the folder or Hub id; the weights are loaded again on first use, once per process.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Pipeline of a known family. The error for any other pipeline lists the known ones.
    image_shape : tuple of int or None, default=None
        Shape of the images whose flattened rows X holds, such as (32, 32, 3); None refuses rows.
    free_text_encoder : bool, default=False
        Whether to drop the text encoders after encoding prompts, which leaves their memory to the
        denoiser. :meth:`from_pretrained` loads them again when needed; a pipeline made in memory
        loses them permanently (its ``text_encoder`` becomes None).

    Attributes
    ----------
    schedule, prediction_type, learned_variance, text_conditional, unconditional_prompt
    default_template, image_size, device, dtype
        As in :class:`~diffusion_classifier.backends.Backend`.

    Raises
    ------
    InputTypeError
        If ``pipeline`` is the name of a folder or Hub id.
    InputValueError
        If the pipeline is of no known family, lacks a component, or needs more than a prompt.

    Examples
    --------
    Load a model and a LoRA from the Hub and keep its networks on the CPU until they are needed::

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
    _model: PipelineModel
    _pickled: ModelState  # only set in unpickled backends

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

    @property
    def pipeline(self) -> Any:
        """The pipeline. An unpickled backend loads it on first access."""
        if self._pipeline is None:
            assert self._origin is not None  # backends without an origin cannot be pickled
            loaded = cached(self._origin, DiffusersBackend.from_origin)
            if loaded._state() != self._pickled:
                raise InputValueError(
                    f"{self._origin.name} is not the model that this was pickled with: either its "
                    "configuration has changed since, so restore the same model or fit again; or "
                    "an adapter (LoRA) was loaded, which pickles leave out, so fuse it and save "
                    "the pipeline."
                )
            self._pipeline, self._model = loaded.pipeline, loaded._model
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        if isinstance(pipeline, str | os.PathLike):
            raise InputTypeError(
                f"load a folder or Hub id with from_pretrained({str(pipeline)!r})."
            )
        names = [cls.__name__ for cls in type(pipeline).__mro__]
        family = find_family(names, f"this is a {names[0]}")
        may_lack = family.text_encoders if self.free_text_encoder else ()
        check_components(family, pipeline, may_lack)
        family = preconditioned(family, pipeline)
        self._model = PipelineModel(family, pipeline)
        self.prediction_type, self.schedule = self._model.prediction_type, self._model.schedule
        self.text_conditional = family.text_conditional
        self.learned_variance = family.learned_variance(pipeline)
        self.unconditional_prompt = family.unconditional_prompt
        self.default_template = family.default_template
        self.image_size = family.image_size(pipeline)
        self._family = family
        self._pipeline = pipeline
        self._pipeline_class = names[0]
        self._origin: Origin | None = None

    @property
    def denoiser(self) -> Any:
        """The network that predicts the noise: a part of the pipeline."""
        return getattr(self.pipeline, self._family.denoiser)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Device on which the denoiser runs, even while it is offloaded."""
        return self.pipeline._execution_device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Dtype in which the denoiser computes."""
        return self.denoiser.dtype

    @property
    def compiled(self) -> bool:  # type: ignore[override]
        """Whether the denoiser is compiled, here or by the user."""
        return is_compiled(self.denoiser)

    def compile(self, mode: Compile = True) -> Self:
        """Compile the pipeline's denoiser in place, with ``torch.compile``.

        Worth it for long runs on a GPU: the first batch of each length takes a minute or so.
        Batches are then padded to a few lengths.

        Parameters
        ----------
        mode : bool, "regional", "reduce-overhead" or "max-autotune", default=True
            As ``compile`` of :meth:`from_pretrained`.

        Returns
        -------
        DiffusersBackend
            The backend itself.

        Raises
        ------
        InputValueError
            If ``mode`` is unknown, or "regional" for a network that names no repeated blocks.
        """
        compile_denoiser(self.denoiser, mode)
        return self

    class_by_position = False  # a prompt says which class: as text, name or index

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images as latents.

        Parameters
        ----------
        images : Tensor of shape (B, 3, H, W)
            In [-1, 1]; sides divisible by the autoencoder's downsampling times the patch size.

        Returns
        -------
        Tensor of shape (B, C, h, w), dtype float32
            The mode of the autoencoder's posterior, so no randomness, on ``device``.

        Raises
        ------
        InputValueError
            If a side is not divisible.
        """
        return self._family.encode_images(self.pipeline, images)

    @torch.no_grad()
    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """Encode prompts with the text encoders, or look up the classes that they name.

        Parameters
        ----------
        labels : sequence of length P
            Ignored; the prompts alone determine the conditions.
        prompts : sequence of str of length P

        Returns
        -------
        Conditioning of length P

        Raises
        ------
        InputValueError
            If a class-conditional model has no class of that name or index, the text encoders
            were freed and cannot be loaded again, or the pipeline cannot be used as it is now (see
            :meth:`identity`).

        Warns
        -----
        UserWarning
            If prompts are too long for the text encoder or have words outside ``known_words``.
        """
        prompts = list(prompts)
        if self.known_words is not None:
            warn_of_unknown_words(prompts, self.known_words)
        pipeline, family = self.pipeline, self._family
        load_text_encoders(pipeline, family, self._origin)
        try:
            self._model.check()
            with one_truncation_warning():
                parts = [
                    family.encode_prompts(pipeline, prompts[i : i + PROMPTS_PER_BATCH])
                    for i in range(0, len(prompts), PROMPTS_PER_BATCH)
                ]
        finally:
            if self.free_text_encoder:
                self._model.drop_text_encoders()
        return Conditioning.concatenate(padded_alike(parts))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Run the denoiser on noised latents [R, C, h, w], timesteps [R] and R conditions."""
        return self._family.forward(self.pipeline, z, t, condition)[:, : z.shape[1]]

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """Return the denoiser's output and its learned variance, both [R, C, h, w]."""
        if not self.learned_variance:
            return super().forward_with_variance(z, t, condition)
        output, variance = self._family.forward(self.pipeline, z, t, condition).chunk(2, 1)
        return output, variance

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor parameters by name.

        With ``deep=False``, as scikit-learn prints them, the pipeline is replaced by a short
        text. In an unpickled backend the pipeline is None until it is loaded by another call.
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
        """Identify the model by its origin, its configuration and what was done to it since.

        Returns
        -------
        dict
            ``name``, ``revision``, ``subfolder``, ``pipeline_class`` and ``config_sha256``, a hash
            of the components' configurations and of the changes below. It covers neither weights
            as loaded nor their dtype, so a folder is the same model whenever it is loaded.
            ``changes``, only if there are any, describes adapters (LoRA) that take effect, with
            their scales, and weights that were changed in place (a fused adapter) since the
            backend was made, by a hash of 16 elements of each tensor.

        Raises
        ------
        InputValueError
            If the pipeline cannot be used as it is now: a step cache (``enable_cache``), an
            IP-Adapter, sequential offload to the CPU, or another kind of network or scheduler.
        """
        if self._pipeline is not None:
            self._model.check()
        origin, state = self._origin, self._state()
        identity = {
            "name": origin.name if origin else self.pipeline.config.get("_name_or_path"),
            "revision": origin.revision if origin else None,
            "subfolder": origin.subfolder if origin else None,
            "pipeline_class": self._pipeline_class,
            "config_sha256": state.config_sha256,
        }
        return identity | ({"changes": state.changes} if state.changes else {})

    def fingerprint(self) -> str:
        origin, _ = self._origin, self.pipeline  # which an unpickled backend loads
        return self._model.fingerprint(origin and (origin.name, origin.revision, origin.subfolder))

    def _state(self) -> ModelState:
        return self._pickled if self._pipeline is None else self._model.state()

    def __copy__(self) -> DiffusersBackend:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict) -> DiffusersBackend:
        """Copy without copying the weights, which no method changes."""
        return copy.copy(self)

    def __sklearn_clone__(self) -> DiffusersBackend:
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        if self._origin is None:
            raise pickle.PicklingError(
                f"this {self._pipeline_class} was made in memory and cannot be pickled; save it "
                "with pipeline.save_pretrained(folder) and use "
                "DiffusersBackend.from_pretrained(folder)."
            )
        origin = self._origin
        if isinstance(origin.token, str):
            origin = replace(origin, token=None)  # a secret; whoever unpickles uses their login
        changed = {"_pipeline": None, "_model": None, "_origin": origin, "_pickled": self._state()}
        return self.__dict__ | changed

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return f"DiffusersBackend({self._pipeline_class}, {self._where()})"
