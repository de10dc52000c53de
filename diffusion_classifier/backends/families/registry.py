"""Registry of the families of diffusers pipelines.

To add a family, write a class and list an instance in ``FAMILIES``. From outside the package, pass
the instance to :func:`register_family`; see docs/adapters.md.
"""

from __future__ import annotations

from typing import Any

from ...errors import InputTypeError, InputValueError
from .base import Family
from .dit import DiT, HunyuanDiT, Lumina2, PixArt, Sana
from .flux import Bria, BriaFibo, Chroma, Flux2, Flux2Klein, OvisImage
from .language import CogView4, HiDream, HunyuanImage, Kandinsky5, ZImage
from .mmdit import AuraFlow, Flux, QwenImage, QwenImage21, StableDiffusion3
from .pixel import ClassConditionalUNet, DeepFloydIF
from .refused import reason
from .unet import Kolors, StableDiffusion, StableDiffusionXL

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
    ZImage(),
    Flux2Klein(),
    Flux2(),
    Chroma(),
    CogView4(),
    HiDream(),
    OvisImage(),
    Bria(),
    BriaFibo(),
    QwenImage21(),
    Kolors(),
    HunyuanImage(),
    Kandinsky5(),
]


def register_family(family: Family) -> None:
    """Register a new family of pipelines, or replace the adapter of known pipelines.

    The family registered last takes precedence. Registration holds for this process only:
    workers of scikit-learn's ``n_jobs`` must register the family themselves.

    Parameters
    ----------
    family : Family
        An instance of your own adapter.

    Raises
    ------
    InputTypeError
        If ``family`` is not an instance of Family.

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
        raise InputTypeError(
            f"family={family!r} is not a Family; give an instance of a subclass of Family."
        )
    FAMILIES.insert(0, family)


def find_family(class_names: Any, subject: str) -> Family:
    """Return the family of the first match among the names of pipeline classes.

    Raises
    ------
    InputValueError
        If there is no such family. The message starts with ``subject``.
    """
    for family in FAMILIES:
        if not set(family.pipelines).isdisjoint(class_names):
            return family
    for why in filter(None, map(reason, class_names)):
        raise InputValueError(f"{subject}, which is not supported: {why}.")
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    raise InputValueError(
        f"{subject}, which is not supported; known pipelines are {known}. Wrap any other network "
        "as FunctionBackend(lambda z, t, class_index: ..., schedule=alphas_cumprod, "
        "prediction_type='epsilon'), or add its family with register_family (docs/adapters.md)."
    )
