"""One case per family of pipelines: how to build a tiny one, and how its own call is run.

``diffusion_classifier.testing`` runs the pipeline's own ``__call__`` and compares the adapter with
it; ``tests/support/own_calls.py`` passes it what a case says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import diffusers
import torch
from torch import Tensor

from tests.support import (
    language_pipelines,
    other_pipelines,
    pipelines,
    tier_two_flows,
    tier_two_pipelines,
)
from tests.support.pipelines import PROMPTS

ONE_ENCODER = ("text_encoder",)
TWO_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Case:
    """A family, one pipeline of it, and what is to be expected.

    Attributes
    ----------
    build : callable
        Returns a new tiny pipeline.
    prediction_type : str
    latent : tuple of int
        Shape of the latent of an image of ``pixels``.
    call : dict
        Arguments of the pipeline's own ``__call__`` that switch off guidance and all else that
        would change prompts or images.
    labels : tuple of str
        Prompts, or names of classes.
    time_before_shift : bool
        Whether the network is told the time that the scheduler then shifts to a noise level.
    spread : float
        How much labels change the error at least, relative to it.
    """

    build: Callable[[], Any]
    prediction_type: str
    latent: tuple[int, ...]
    call: dict[str, Any]
    image_size: tuple[int, int] = (16, 16)
    labels: tuple[str, ...] = PROMPTS
    denoiser: str = "unet"
    text_encoders: tuple[str, ...] = ONE_ENCODER
    spread: float = 0.01
    time_before_shift: bool = False
    pixels: tuple[int, int] = (16, 16)  # of test images: the model's own may take too long


# oblong, so that height and width cannot be mistaken for each other
PLAIN = {"guidance_scale": 1.0, "output_type": "pt", "height": 16, "width": 24}
UNCLEANED = {**PLAIN, "clean_caption": False, "use_resolution_binning": False}

UNET = Case(pipelines.tiny_sd, "epsilon", (4, 8, 8), PLAIN)
XL = replace(UNET, build=pipelines.tiny_sdxl, text_encoders=TWO_ENCODERS)
SD3 = replace(
    XL,
    build=other_pipelines.tiny_sd3,
    prediction_type="flow",
    denoiser="transformer",
    text_encoders=(*TWO_ENCODERS, "text_encoder_3"),
)
FLUX = replace(
    SD3,
    build=other_pipelines.tiny_flux,
    image_size=(256, 256),
    text_encoders=TWO_ENCODERS,
)
PIXART = replace(
    UNET, build=other_pipelines.tiny_pixart_sigma, call=UNCLEANED, denoiser="transformer"
)
LARGER = replace(
    PIXART,
    latent=(4, 4, 4),
    call={**PLAIN, "height": 32, "width": 48},
    image_size=(32, 32),
    pixels=(32, 32),
)
CASES = {
    "sd": UNET,
    "sd_v": replace(
        UNET, build=lambda: pipelines.tiny_sd("v_prediction"), prediction_type="v_prediction"
    ),
    "lcm": replace(UNET, build=pipelines.tiny_lcm),
    "sdxl": XL,
    "kolors": replace(UNET, build=language_pipelines.tiny_kolors, spread=1e-3),
    "sdxl_lcm": replace(XL, build=pipelines.tiny_sdxl_lcm),
    "sd3": SD3,
    "flux": FLUX,
    "flux_schnell": replace(
        FLUX, build=lambda: other_pipelines.tiny_flux(other_pipelines.flux_schnell)
    ),
    "dit": replace(
        UNET,
        build=other_pipelines.tiny_dit,
        call={"guidance_scale": 1.0, "output_type": "pt"},
        labels=("Tinca tinca", "black grouse", "2", "4"),
        denoiser="transformer",
        text_encoders=(),
    ),
    "pixart_alpha": replace(PIXART, build=other_pipelines.tiny_pixart_alpha, image_size=(256, 256)),
    "pixart_sigma": PIXART,
    "sana": replace(
        PIXART,
        build=other_pipelines.tiny_sana,
        prediction_type="flow",
        call={**UNCLEANED, "height": 32, "width": 64, "complex_human_instruction": None},
    ),
    "aura_flow": replace(
        SD3,
        build=tier_two_pipelines.tiny_aura_flow,
        image_size=(1024, 1024),
        text_encoders=ONE_ENCODER,
        spread=5e-4,
    ),
    "lumina": replace(
        LARGER, build=tier_two_pipelines.tiny_lumina, prediction_type="flow", spread=1e-3
    ),
    "hunyuan": replace(
        LARGER,
        build=tier_two_pipelines.tiny_hunyuan,
        prediction_type="v_prediction",
        call={**LARGER.call, "use_resolution_binning": False, "original_size": (32, 48)},
        text_encoders=TWO_ENCODERS,
    ),
    "qwen_image": replace(
        FLUX,
        build=tier_two_pipelines.tiny_qwen_image,
        call={"output_type": "pt", "height": 16, "width": 24},
        text_encoders=ONE_ENCODER,
        spread=1e-3,
    ),
    "z_image": replace(
        LARGER,
        build=language_pipelines.tiny_z_image,
        prediction_type="flow",
        call={**LARGER.call, "guidance_scale": 0.0},
        image_size=(1024, 1024),
        spread=1e-3,
    ),
    "flux2_klein": replace(
        FLUX, build=language_pipelines.tiny_flux2_klein, text_encoders=ONE_ENCODER, spread=1e-3
    ),
    "flux2": replace(
        FLUX, build=language_pipelines.tiny_flux2, text_encoders=ONE_ENCODER, spread=1e-3
    ),
    "hidream": replace(
        SD3,
        build=language_pipelines.tiny_hidream,
        call={**PLAIN, "height": 8, "width": 32},
        image_size=(256, 256),
        text_encoders=(*TWO_ENCODERS, "text_encoder_3", "text_encoder_4"),
        spread=1e-3,
    ),
    "chroma": replace(FLUX, build=language_pipelines.tiny_chroma, text_encoders=ONE_ENCODER),
    "cogview4": replace(
        LARGER,
        build=language_pipelines.tiny_cogview4,
        prediction_type="flow",
        time_before_shift=True,
        spread=1e-3,
    ),
    "ovis_image": replace(
        FLUX,
        build=tier_two_flows.tiny_ovis_image,
        text_encoders=ONE_ENCODER,
        spread=1e-3,
    ),
    "bria": replace(
        FLUX,
        build=tier_two_flows.tiny_bria,
        text_encoders=ONE_ENCODER,
        spread=1e-3,
    ),
    "bria_fibo": replace(
        FLUX,
        build=tier_two_flows.tiny_bria_fibo,
        latent=(4, 2, 2),
        call={**PLAIN, "height": 32, "width": 48},
        image_size=(1024, 1024),
        pixels=(32, 32),
        text_encoders=ONE_ENCODER,
        spread=1e-3,
    ),
    "qwen_image_21": replace(
        FLUX,
        build=tier_two_flows.tiny_qwen_image_21,
        latent=(4, 2, 2),
        call={"output_type": "pt", "height": 32, "width": 96, "use_kv_cache": False},
        image_size=(1024, 1024),
        labels=("a cat", "a dog", "a hen", "a bee"),  # it answers for the longest of a call
        pixels=(32, 32),
        text_encoders=ONE_ENCODER,
        spread=1e-3,
    ),
    "hunyuan_image": replace(
        SD3,
        build=tier_two_flows.tiny_hunyuan_image,
        call={"output_type": "pt", "height": 16, "width": 24, "distilled_guidance_scale": 1.0},
        image_size=(128, 128),
        labels=("a cat", "the word 'dog' on a wall", 'the word "eel"', "two eels"),
        text_encoders=TWO_ENCODERS,
        spread=1e-3,
    ),
    "kandinsky5": replace(
        LARGER,
        build=tier_two_flows.tiny_kandinsky5,
        prediction_type="flow",
        image_size=(1024, 1024),
        labels=("a cat", "a dog", "a hen", "a bee"),  # it answers for the longest of a call
        text_encoders=TWO_ENCODERS,
    ),
    "edm": replace(XL, build=tier_two_pipelines.tiny_edm, prediction_type="v_prediction"),
    "playground": replace(
        XL,
        build=tier_two_pipelines.tiny_playground,
        prediction_type="v_prediction",
    ),
    "class_unet": Case(
        other_pipelines.tiny_ddpm,
        "epsilon",
        (3, 16, 16),
        call={},
        labels=("0", "1", "2", "3"),
        text_encoders=(),
    ),
    "deepfloyd": Case(
        other_pipelines.tiny_if,
        "epsilon",
        (3, 16, 16),
        call={
            "guidance_scale": 1.0,
            "output_type": "pt",
            "height": 16,
            "width": 24,
            "clean_caption": False,
        },
    ),
}


def generate(pipeline: Any, labels: list[str], **options: Any) -> None:
    """Generate an image for each label where neither prompts nor indices are enough."""
    if type(pipeline) is diffusers.HiDreamImagePipeline:
        pipeline.default_sample_size = 8  # it scales all images to the area of such a square
        pipeline(prompt=labels, **options)
        return
    if type(pipeline) is diffusers.BriaPipeline:  # it takes no noise levels
        levels = f"{diffusers.BriaPipeline.__module__}.get_original_sigmas"
        with patch(levels, return_value=options.pop("sigmas")):
            pipeline(prompt=labels, **options)
        return
    if type(pipeline) is diffusers.BriaFiboPipeline:
        times = [1000 * sigma for sigma in options.pop("sigmas")]
        pipeline(prompt=labels, timesteps=times, **options)
        return
    if type(pipeline) is diffusers.Kandinsky5T2IPipeline:  # nor other sizes than its own
        pipeline.resolutions = [(options["width"], options["height"])]
        levels = partial(pipeline.scheduler.set_timesteps, sigmas=options.pop("sigmas"))
        with patch.object(pipeline.scheduler, "set_timesteps", levels):
            pipeline(prompt=labels, **options)
        return
    unet = pipeline.unet  # of DDPM, which gives no labels: they go in underneath
    pipeline.unet = LabelledUNet(unet, torch.tensor([int(label) for label in labels]))
    pipeline(batch_size=len(labels), **options)
    pipeline.unet = unet


class LabelledUNet:
    """A UNet that is called with labels whoever calls it."""

    def __init__(self, unet: Any, labels: Tensor) -> None:
        self.unet, self.labels = unet, labels

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def __call__(self, z: Tensor, t: Tensor) -> Any:
        return self.unet(z, t, class_labels=self.labels)
