"""All families of diffusers pipelines: a new one is a class and a line here.

Or, from outside the package, a class and a call of :func:`register_family`; see docs/adapters.md.
"""

from __future__ import annotations

from typing import Any

from ...errors import InputTypeError, InputValueError
from .base import Family
from .dit import DiT, HunyuanDiT, Lumina2, PixArt, Sana
from .mmdit import AuraFlow, Flux, QwenImage, StableDiffusion3
from .pixel import ClassConditionalUNet, DeepFloydIF
from .unet import StableDiffusion, StableDiffusionXL

FAMILIES: list[Family] = [
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
]


def register_family(family: Family) -> None:
    """Have pipelines of a new family loaded, or those of a known one served otherwise.

    For this process: workers of scikit-learn's ``n_jobs`` must register it for themselves. The
    latest registered comes first.

    Parameters
    ----------
    family : Family
        An instance of an adapter of your own.

    Raises
    ------
    TypeError
        If it is not.

    Examples
    --------
    >>> from diffusion_classifier.backends import register_family
    >>> from diffusion_classifier.backends.families import FAMILIES, find_family
    >>> from diffusion_classifier.backends.families.mmdit import AuraFlow
    >>> class ShortAuraFlow(AuraFlow):
    ...     default_template = "{}"
    >>> register_family(ShortAuraFlow())
    >>> find_family(["AuraFlowPipeline"], "this").default_template
    '{}'
    >>> del FAMILIES[0]
    """
    if not isinstance(family, Family):
        raise InputTypeError(f"{family!r} is no Family: give an instance of a subclass of it.")
    FAMILIES.insert(0, family)


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
    raise InputValueError(
        f"{subject}, which is not supported; known pipelines are {known}. Wrap any other network "
        "as FunctionBackend(lambda z, t, class_index: ..., schedule=alphas_cumprod, "
        "prediction_type='epsilon'), or add the family with register_family (docs/adapters.md)."
    )
