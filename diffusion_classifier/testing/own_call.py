"""What a family's denoiser is given and returns in the pipeline's own ``__call__``.

That call is the truth which an adapter is compared with. It runs on the scheduler of training,
whose one step from ``z = alpha x + sigma eps`` to the image is the network's prediction of x.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ..backends import DiffusersBackend
from ..backends.families.mmdit import unpack
from ..errors import InputValueError
from ..utils.quiet import quiet
from .subject import Subject, require

Generate = Callable[..., Any]


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
    stepped: Any = None
    decoded: Any = None

    @property
    def noised(self) -> Tensor:
        """What the denoiser was asked to denoise, whatever the argument's name."""
        return next(iter(self.given.values()))


@dataclass(frozen=True)
class FamilySubject(Subject):
    """A pipeline's backend, and how the pipeline's own call is made.

    Attributes
    ----------
    backend : DiffusersBackend
    call : mapping
        Arguments of ``__call__`` besides the defaults of :meth:`arguments`.
    generate : callable or None
        ``generate(pipeline, labels, **arguments)`` makes one image per label.
    scheduler : scheduler or None
        One whose single step denoises entirely; None: made from the pipeline's.
    """

    backend: DiffusersBackend
    call: Mapping[str, Any]
    generate: Generate | None = None
    scheduler: Any = None

    @property
    def pipeline(self) -> Any:
        """The backend's pipeline."""
        return self.backend.pipeline

    @property
    def family(self) -> Any:
        """The backend's adapter."""
        return self.backend._family

    @property
    def denoiser(self) -> Any:
        """The network that predicts the noise."""
        return getattr(self.pipeline, self.family.denoiser)

    @property
    def deviation(self) -> float:
        """How much larger the pipeline's latents are than ours: those of EDM are not scaled."""
        return self.pipeline.scheduler.config.sigma_data if edm(self.pipeline) else 1.0

    def arguments(self) -> dict[str, Any]:
        """Return arguments of the pipeline's own call without guidance, at the images' size."""
        height, width = self.images.shape[-2:]
        plain = {"guidance_scale": 1.0, "output_type": "pt", "height": height, "width": width}
        known = inspect.signature(type(self.pipeline).__call__).parameters
        return {name: value for name, value in plain.items() if name in known} | dict(self.call)

    def as_images(self, latents: Tensor) -> Tensor:
        """Return the pipeline's latents [R, C, h, w], of films of one frame or packed patches."""
        if latents.ndim == 5 and latents.shape[2] > 1:  # [R, frame, h, w, C]
            return latents[:, 0].movedim(-1, 1)
        if latents.ndim == 5:
            return latents.squeeze(2)
        if latents.ndim == 4:
            return latents
        given, factor = self.arguments(), self.family.downsampling(self.pipeline)
        side = self.family.patch_size(self.pipeline)
        return unpack(latents, given["height"] // factor, given["width"] // factor, side)

    def run(self, pipeline: Any, **options: Any) -> None:
        """Generate an image for each label with the pipeline's own ``__call__``."""
        arguments = self.arguments() | options
        known = inspect.signature(type(pipeline).__call__).parameters
        if self.generate is not None:
            self.generate(pipeline, list(self.labels), **arguments)
        elif self.family.text_conditional:
            pipeline(prompt=list(self.labels), **arguments)
        elif "class_labels" in known:
            indices = self.encode(self.labels)["class_labels"].tolist()
            pipeline(class_labels=indices, **arguments)
        else:
            raise InputValueError(
                f"{type(pipeline).__name__} takes neither prompts nor class_labels; give "
                "generate(pipeline, labels, **arguments), which makes one image per label."
            )


def edm(pipeline: Any) -> bool:
    """Whether a pipeline's network has the preconditioning of EDM."""
    return type(pipeline.scheduler).__name__.startswith("EDM")


def training_scheduler(subject: FamilySubject) -> Any:
    """Make the scheduler of training, on which one step denoises entirely."""
    if subject.scheduler is not None:
        return copy.deepcopy(subject.scheduler)
    import diffusers

    base: Any = diffusers.DDPMScheduler

    class AncestralScheduler(base):
        def set_timesteps(self, n: Any, device: Any = None, **ignored: Any) -> None:
            super().set_timesteps(n, device)

    config = subject.pipeline.scheduler.config
    if edm(subject.pipeline):
        return diffusers.EDMEulerScheduler.from_config(config)
    if subject.backend.prediction_type == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(
            config, shift=1.0, use_dynamic_shifting=False
        )
    options: dict[str, Any] = {
        "clip_sample": False,
        "thresholding": False,
        "variance_type": "fixed_small",
    }
    return AncestralScheduler.from_config(config, timestep_spacing="trailing", **options)


def recorded(subject: FamilySubject, n_steps: int) -> list[Call]:
    """Run the pipeline's own call in evenly spaced steps and note each call of its denoiser."""
    pipeline = copy.copy(subject.pipeline)
    pipeline.scheduler = training_scheduler(subject)
    timesteps, n = own_timesteps(subject, n_steps), subject.backend.schedule.n_timesteps
    options: dict[str, Any] = {"num_inference_steps": n_steps}
    if subject.backend.prediction_type == "flow":
        options["sigmas"] = [(t + 0.5) / n for t in timesteps]
    if edm(subject.pipeline):  # where on its grid, from the most noise to the least
        options["sigmas"] = 1 - torch.tensor(timesteps) / (n - 1)
    pipeline.set_progress_bar_config(disable=True)
    with (
        quiet(),
        torch.no_grad(),
        watched(subject.denoiser) as calls,
        results_of(pipeline.scheduler, "step") as steps,
        arguments_of(getattr(pipeline, "vae", None), "decode") as decoded,
    ):
        subject.run(pipeline, generator=torch.Generator().manual_seed(0), **options)
    rows = {len(call.output) for call in calls}
    require(
        len(calls) == n_steps and rows == {len(subject.labels)},
        f"the pipeline's own call ran its {subject.family.denoiser} {len(calls)} times in "
        f"{n_steps} steps, with {sorted(rows)} rows for {len(subject.labels)} labels; switch "
        "guidance off with call={...}: guidance_scale is 1, or 0 in some pipelines.",
    )
    last = decoded[-1] if decoded else None
    return [replace(c, stepped=s[0], decoded=last) for c, s in zip(calls, steps, strict=True)]


def own_timesteps(subject: FamilySubject, n_steps: int) -> list[int]:
    """Return evenly spaced timesteps, from the most noise on."""
    n = subject.backend.schedule.n_timesteps
    return [round(n * (n_steps - k) / n_steps) - 1 for k in range(n_steps)]


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
    try:
        yield calls
    finally:
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
