"""All families of diffusers pipelines: a new one is a class and a line here."""

from __future__ import annotations

from typing import Any

from .dit import DiT, HunyuanDiT, Lumina2, PixArt, Sana
from .family import Family
from .mmdit import AuraFlow, Flux, QwenImage, StableDiffusion3
from .pixel import ClassConditionalUNet, DeepFloydIF
from .unet import StableDiffusion, StableDiffusionXL

FAMILIES: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    StableDiffusion3(),
    Flux(),
    DiT(),
    PixArt(),
    Sana(),
    ClassConditionalUNet(),
    DeepFloydIF(),
    AuraFlow(),
    QwenImage(),
    Lumina2(),
    HunyuanDiT(),
)


def find_family(class_names: Any, subject: str) -> Family:
    """The family that serves one of these pipeline classes.

    Raises
    ------
    ValueError
        If there is none; the error opens with ``subject``.
    """
    for family in FAMILIES:
        if not set(family.pipelines).isdisjoint(class_names):
            return family
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    raise ValueError(
        f"{subject}, which is not supported; known pipelines are {known}. Wrap any other network "
        "as FunctionBackend(lambda z, t, class_index: ..., schedule=alphas_cumprod, "
        "prediction_type='epsilon')."
    )
