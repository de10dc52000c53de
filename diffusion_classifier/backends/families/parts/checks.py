"""Checks of a pipeline's parts, when a backend is made and again when it is used."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from ....errors import InputValueError
from ....noise.schedule import NoiseSchedule
from ...state import networks
from ..base import Family
from .autoencoder import check_scaling


def check_components(family: Family, pipeline: Any, may_lack: Collection[str]) -> None:
    """Raise unless a pipeline has the components that classification uses, of the right kind.

    Raises
    ------
    InputValueError
        If a component is missing that is neither optional nor in ``may_lack``, a network is not of
        diffusers or transformers, the denoiser needs inputs that the family does not supply, a
        tokenizer allows more tokens than its text encoder has positions, or the autoencoder's scale
        is unusable.
    """
    for name in family.components:
        optional = name in family.optional or name in may_lack
        if getattr(pipeline, name, None) is None and not optional:
            raise InputValueError(f"the pipeline has no {name}; set pipeline.{name} and try again.")
    for name, network in networks(pipeline, family.components):
        if not hasattr(network, "config"):
            raise InputValueError(
                f"pipeline.{name} is a {type(network).__name__}, which has no config; set it to a "
                "network of diffusers or transformers, or wrap your own with FunctionBackend."
            )
    family.check(pipeline)
    for name in family.text_encoders:
        _check_length(name, getattr(pipeline, name, None), pipeline)
    if "vae" in family.components:
        check_scaling(pipeline.vae)


def _check_length(name: str, encoder: Any, pipeline: Any) -> None:
    """Raise if prompts are padded to more tokens than a CLIP text encoder has positions."""
    tokenizer = getattr(pipeline, name.replace("text_encoder", "tokenizer"), None)
    positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
    if tokenizer is None or positions is None or not type(encoder).__name__.startswith("CLIP"):
        return
    if not 0 < tokenizer.model_max_length <= positions:
        raise InputValueError(
            f"the tokenizer of the {name} allows {tokenizer.model_max_length} tokens "
            f"(model_max_length), but the {name} has {positions} positions; restore its "
            "tokenizer_config.json."
        )


def check_scheduler(
    family: Family, pipeline: Any, prediction_type: str, schedule: NoiseSchedule
) -> None:
    """Raise if a pipeline's scheduler tells another training than was read from an earlier one.

    A scheduler may be replaced by one of another class, to sample images. One that does not tell
    how noise was added in training cannot differ.

    Raises
    ------
    InputValueError
        If the prediction type or the noise levels differ.
    """
    try:
        kind, levels = family.prediction_type(pipeline), family.schedule(pipeline)
    except InputValueError:
        return
    advice = "put the earlier scheduler back, or make a new DiffusersBackend and call fit again."
    if kind != prediction_type:
        raise InputValueError(
            f"pipeline.scheduler now has prediction_type={kind!r}, but {prediction_type!r} was "
            f"read when the backend was made; {advice}"
        )
    same = levels.n_timesteps == schedule.n_timesteps and all(
        torch.allclose(now, then, rtol=1e-4, atol=1e-6)
        for now, then in ((levels.alpha, schedule.alpha), (levels.sigma, schedule.sigma))
    )
    if not same:
        raise InputValueError(
            "pipeline.scheduler now has other noise levels (betas, or num_train_timesteps) than "
            f"were read when the backend was made; {advice}"
        )
