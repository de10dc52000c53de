"""One case per family of pipelines: how to build a tiny one, and how its own call is run.

``record`` runs the pipeline's own ``__call__`` and notes what its denoiser was given and returned
and what its scheduler made of that: the truth that adapters are compared with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import diffusers
import torch
from torch import Tensor

from diffusion_classifier.backends.families.mmdit import unpack
from tests.support import language_pipelines, other_pipelines, pipelines, tier_two_pipelines
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
    sign : int
        Of the pipeline's velocity, in what its denoiser returns.
    deviation : float or None
        Of the data of a preconditioned network, whose pipeline's latents are that much larger
        than ours.
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
    packed: bool = False
    sign: int = 1
    spread: float = 0.01
    deviation: float | None = None
    time_before_shift: bool = False
    pixels: tuple[int, int] = (16, 16)  # of test images: the model's own may take too long

    def unpack(self, pipeline: Any, latents: Tensor) -> Tensor:
        """Latents as images again, where the pipeline's denoiser reads them as a sequence."""
        if latents.ndim == 5:  # a film of one frame
            return latents.squeeze(2)
        if not self.packed:
            return latents
        height, width = self.call["height"], self.call["width"]
        height, width = (side // pipeline.vae_scale_factor for side in (height, width))
        if latents.ndim == 4:  # once the pipeline has unpacked them itself
            return latents
        return unpack(latents, height, width)


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
    packed=True,
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
        LARGER, build=tier_two_pipelines.tiny_lumina, prediction_type="flow", sign=-1, spread=1e-3
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
        sign=-1,
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
        sign=-1,
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
    "edm": replace(
        XL, build=tier_two_pipelines.tiny_edm, prediction_type="v_prediction", deviation=1.0
    ),
    "playground": replace(
        XL,
        build=tier_two_pipelines.tiny_playground,
        prediction_type="v_prediction",
        deviation=0.5,
        sign=-1,
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


@dataclass(frozen=True)
class Call:
    """One evaluation of a denoiser.

    Attributes
    ----------
    given : dict
        Its arguments by name.
    output : Tensor
    stepped : Tensor
        The latents that the scheduler made of the output.
    decoded : Tensor
        What the decoder was given after the last step.
    """

    given: dict[str, Any]
    output: Tensor
    stepped: Tensor | None = None
    decoded: Tensor | None = None


def record(case: Case, pipeline: Any, **options: Any) -> list[Call]:
    """Run the pipeline's own ``__call__`` for all labels and note every call of its denoiser."""
    generator = torch.Generator().manual_seed(0)
    pipeline.set_progress_bar_config(disable=True)
    with (
        watched(getattr(pipeline, case.denoiser)) as calls,
        results_of(pipeline.scheduler, "step") as steps,
        arguments_of(getattr(pipeline, "vae", None), "decode") as decoded,
    ):
        run(case, pipeline, generator=generator, **options)
    last = decoded[-1] if decoded else None
    return [replace(c, stepped=s[0], decoded=last) for c, s in zip(calls, steps, strict=True)]


@contextmanager
def results_of(owner: Any, method: str) -> Iterator[list[Any]]:
    """Note what a method returns while the block lasts."""
    original, results = getattr(owner, method), []

    def noted(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    with patch.object(owner, method, noted):
        yield results


@contextmanager
def arguments_of(owner: Any, method: str) -> Iterator[list[Any]]:
    """Note the first argument of a method while the block lasts."""
    if owner is None:
        yield []
        return
    with patch.object(owner, method, wraps=getattr(owner, method)) as spy:
        arguments: list[Any] = []
        yield arguments
        arguments += [call.args[0] for call in spy.call_args_list]


def run(case: Case, pipeline: Any, **options: Any) -> None:
    """Generate an image for each label with the pipeline's own ``__call__``."""
    kind = type(pipeline)
    if kind is diffusers.HiDreamImagePipeline:
        pipeline.default_sample_size = 8  # it scales all images to the area of such a square
    if kind is diffusers.DiTPipeline:
        pipeline(class_labels=[0, 5, 2, 4], **case.call, **options)
    elif kind is diffusers.DDPMPipeline:  # gives no labels: they go in underneath
        unet = pipeline.unet
        pipeline.unet = LabelledUNet(unet, torch.arange(4))
        pipeline(batch_size=4, **options)
        pipeline.unet = unet
    else:
        pipeline(prompt=list(case.labels), **case.call, **options)


class LabelledUNet:
    """A UNet that is called with labels whoever calls it."""

    def __init__(self, unet: Any, labels: Tensor) -> None:
        self.unet, self.labels = unet, labels

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def __call__(self, z: Tensor, t: Tensor) -> Any:
        return self.unet(z, t, class_labels=self.labels)


@contextmanager
def watched(network: torch.nn.Module) -> Iterator[list[Call]]:
    """Note every call of a network while the block lasts."""
    calls: list[Call] = []
    parameters = inspect.signature(network.forward)

    def note(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = parameters.bind(*args, **kwargs).arguments
        result = output[0] if torch.is_tensor(output[0]) else torch.stack(list(output[0]))
        calls.append(Call(tensors_of(given), result))

    handle = network.register_forward_hook(note, with_kwargs=True)
    yield calls
    handle.remove()


def tensors_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Everything that a network was given by name, nested ones too; not switches and None."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, dict):
            flat |= tensors_of(value)
        elif name == "x":  # a list of latents
            flat[name] = torch.stack(value)
        elif isinstance(value, tuple | list):
            flat |= tensors_of({f"{name}.{i}": part for i, part in enumerate(value)})
        elif value is not None and not isinstance(value, bool):
            flat[name] = value
    return flat
