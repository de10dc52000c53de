"""Text encoders that are loaded to encode prompts, where a pipeline has none."""

from __future__ import annotations

from typing import Any

from ..errors import InputValueError
from .families.base import Family
from .loading.load import load_pipeline
from .loading.origin import Origin


def load_text_encoders(pipeline: Any, family: Family, origin: Origin | None) -> None:
    """Load the text encoders that a pipeline lacks, onto its device.

    Raises
    ------
    InputValueError
        If a text encoder is missing and the pipeline has no origin to load it from.
    """
    freed = [name for name in family.text_encoders if getattr(pipeline, name) is None]
    if not set(freed) - set(family.optional):
        return
    if origin is None:
        raise InputValueError(
            f"the pipeline has no {freed[0]} to encode prompts with, because "
            "free_text_encoder=True dropped it after an earlier fit; set "
            f"pipeline.{freed[0]} again, or use DiffusersBackend.from_pretrained(folder, "
            "free_text_encoder=True), which loads it whenever it is needed."
        )
    loaded = load_pipeline(origin, only=family.text_encoders)
    for name in freed:
        encoder, device = getattr(loaded, name), pipeline._execution_device
        if encoder is not None and encoder.device != device:
            encoder.to(device)
        setattr(pipeline, name, encoder)
