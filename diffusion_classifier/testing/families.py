r"""``check_family``: whether an adapter gives the network what its pipeline gives it.

One step of the pipeline's own call, on the scheduler of training, turns noise z into the image
x_hat. Its noise prediction is ``eps_hat = (z - alpha x_hat) / sigma``. So for any image x, the
error with the noise ``eps = (z - alpha x) / sigma`` must be
``||eps_hat - eps||^2 = (alpha / sigma)^2 ||x - x_hat||^2``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..backends import DiffusersBackend, register_family
from ..backends.families import FAMILIES, Family, find_family
from ..errors import InputValueError
from .checks import BACKEND_CHECKS
from .own_call import (
    FamilySubject,
    Generate,
    edm,
    own_timesteps,
    recorded,
    training_scheduler,
    watched,
)
from .running import run_checks
from .subject import Rows, make_subject, require, require_close, row_errors

ODD = (5, 7)  # sides that no larger patch divides


def check_sizes(subject: FamilySubject) -> None:
    """Check the sizes of images: the model's own, and one of odd numbers of patches."""
    backend, family, pipeline = subject.backend, subject.family, subject.pipeline
    config = f"the configuration of the {family.denoiser}"
    require(
        backend.image_size is not None,
        f"image_size is None, as {config} has no sample_size; override image_size, and return the "
        "height and width that the pipeline's own __call__ takes by default.",
    )
    patch, scale = family.patch_size(pipeline), family.downsampling(pipeline)
    factor = patch * scale
    uneven = [side for side in backend.image_size or () if side % factor]
    require(
        not uneven,
        f"image_size={backend.image_size} is not divisible by {factor}, the downsampling "
        f"({scale}) times patch_size ({patch}); correct image_size, downsampling or patch_size.",
    )
    height, width = (odd * factor for odd in ODD)
    images = torch.zeros(1, subject.images.shape[1], height, width)
    try:
        latents = backend.encode_images(images)
    except InputValueError:  # of a model with a size of its own
        return
    sides = tuple(odd * patch for odd in ODD)
    require(
        tuple(latents.shape[-2:]) == sides,
        f"images of {height} x {width} pixels give latents of shape {tuple(latents.shape)}; "
        f"expected sides {sides}; correct downsampling.",
    )
    advice = (
        f"images of {height} x {width} pixels should fit, as their sides divide by {factor}, but "
        f"the network cannot read them; patch_size is {patch}, which is a guess where {config} "
        "has no patch_size: override it."
    )
    condition, t = subject.encode(subject.labels[:1]), torch.zeros(1, dtype=torch.int64)
    try:
        with torch.inference_mode():
            output = backend.forward(latents, t.to(latents.device), condition)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise AssertionError(f"{advice} It says: {error}") from error
    require(output.shape == latents.shape, advice)


def check_noising(subject: FamilySubject) -> None:
    """Check that noised latents are those of the scheduler of training."""
    x, scheduler = subject.backend.encode_images(subject.images[:1].clone()), None
    t, n = torch.tensor(subject.timesteps), subject.backend.schedule.n_timesteps
    eps = torch.randn(len(t), *x.shape[1:]).to(x.device)
    alpha, sigma = (
        level.float().view(-1, 1, 1, 1).to(x.device) for level in subject.backend.schedule.at(t)
    )
    scheduler, x = training_scheduler(subject), x.expand_as(eps)
    if subject.backend.prediction_type == "flow":
        scheduler.set_timesteps(sigmas=[(k + 0.5) / n for k in reversed(subject.timesteps)])
        expected = scheduler.scale_noise(x, scheduler.timesteps.flip(0), eps)
    elif edm(subject.pipeline):
        scheduler.set_timesteps(n)
        noisy = scheduler.add_noise(subject.deviation * x, eps, scheduler.timesteps.flip(0)[t])
        sigmas = scheduler.sigmas[:-1].flip(0)[t]
        expected = scheduler.precondition_inputs(noisy, sigmas.view(-1, 1, 1, 1))
    else:
        expected = scheduler.add_noise(x, eps, t)
    require_close(
        alpha * x + sigma * eps,
        expected,
        f"(timestep of {subject.timesteps}, then latent): alpha x + sigma eps is not what the "
        "scheduler of training makes; correct schedule.",
    )


@torch.inference_mode()
def check_own_call(subject: FamilySubject) -> None:
    """Check that the denoiser is given what the pipeline's own call gives it, in three steps."""
    condition = subject.encode(subject.labels)
    calls = recorded(subject, 3)
    for t, call in zip(own_timesteps(subject, 3), calls, strict=True):
        z, where = subject.as_images(call.noised), f"at timestep {t}"
        with watched(subject.denoiser) as ours:
            output = subject.backend.forward(z, torch.full((len(z),), t).to(z.device), condition)
        require(len(ours) > 0, f"forward does not call the {subject.family.denoiser}.")
        if len(ours) == 1:
            compare_given(ours[0].given, call.given, where)
        own = subject.as_images(call.output)[:, : z.shape[1]]
        sign = 1 if (output - own).abs().sum() <= (output + own).abs().sum() else -1
        require_close(
            sign * output,
            own,
            f"in the output of forward {where}, where the pipeline's network returns the other; "
            "give the network the arguments of the pipeline's own call.",
        )


def compare_given(ours: Mapping[str, Any], own: Mapping[str, Any], where: str) -> None:
    """Raise AssertionError unless two calls of a network had the same arguments."""
    require(
        ours.keys() == own.keys(),
        f"{where}, forward gives the network {sorted(ours)} and the pipeline {sorted(own)}; give "
        "it the same arguments.",
    )
    for name, expected in own.items():
        got, message = ours[name], f"in the network's argument {name!r} {where}, where the "
        message += "pipeline gives it the other; encode and call as the pipeline does."
        if torch.is_tensor(expected):
            got, expected = without_hidden(got, expected, own)
            got, expected = torch.broadcast_tensors(got, expected)
            require_close(got, expected, message)
        else:
            require(got == expected, f"{got} instead of {expected} {message}")


def without_hidden(got: Tensor, expected: Tensor, own: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Leave out tokens [R, n, ...] that a mask of the pipeline hides: they change no output."""
    masks = [part for name, part in own.items() if "mask" in name and torch.is_tensor(part)]
    mask = next((part for part in masks if part.shape == expected.shape[:2]), None)
    if mask is None or got.ndim != expected.ndim or mask[:, got.shape[1] :].any():
        return got, expected
    expected, seen = expected[:, : got.shape[1]], mask[:, : got.shape[1]].bool()
    return (got, expected) if expected.ndim == 2 else (got[seen], expected[seen])


def check_own_errors(subject: FamilySubject) -> None:
    """Check errors against those that follow from the image of one step of the pipeline."""
    ours, own = both_errors(subject)
    require_close(
        ours,
        own,
        f"(label) at timestep {own_timesteps(subject, 1)[0]}: the error is not that of the image "
        "which the pipeline's own call makes in one step; correct prediction_type, or the sign or "
        "time of forward.",
        rtol=1e-4,
        atol=0.0,  # errors of flows are tiny at their last timestep
    )


@torch.inference_mode()
def both_errors(subject: FamilySubject) -> tuple[Tensor, Tensor]:
    """Return the errors [label] of the adapter, and of the pipeline's own image after one step."""
    (call,) = recorded(subject, 1)
    z, denoised = (subject.as_images(part) for part in (call.noised, call.stepped))
    t = torch.full((len(z),), own_timesteps(subject, 1)[0], device=z.device)
    alpha, sigma = (level[0].item() for level in subject.backend.schedule.at(t[:1]))
    # not the seed of z: were x equal to z, the error of a flow would not tell the output's sign
    x = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(z.device)
    rows = Rows(x, (z - alpha * x) / sigma, t, subject.encode(subject.labels))
    residual = alpha / sigma * (x - denoised / subject.deviation)
    return row_errors(subject.backend, rows), residual.square().flatten(1).sum(1)


def check_round_trip(subject: FamilySubject) -> None:
    """Check that latents are what the pipeline's own decoder undoes.

    From latents to what its decoder reads, the pipeline multiplies and shifts each channel.
    """
    images = subject.images.clone()
    latents = subject.backend.encode_images(images)
    vae = getattr(subject.pipeline, "vae", None)
    if vae is None:
        require_close(
            latents, images, "a model without an autoencoder reads the pixels in [-1, 1]."
        )
        return
    call = recorded(subject, 1)[0]
    ours = subject.as_images(call.stepped) / subject.deviation
    ours, decoded = (part.transpose(0, 1).flatten(1).float() for part in (ours, call.decoded))
    first, last = ours[:, 0], ours[:, -1]
    slope = (last - first) / (decoded[:, -1] - decoded[:, 0])
    with torch.no_grad():
        images = images.to(latents.device, vae.dtype)
        if vae.config.get("in_channels") == 4:  # it reads how opaque each pixel is, too
            images = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)
        encoded = vae.encode(images[:, :, None] if call.decoded.ndim == 5 else images)
    raw = encoded.latent if "latent" in encoded else encoded.latent_dist.mode()
    expected = slope * (raw.float().view_as(latents).movedim(1, 3) - decoded[:, 0]) + first
    require_close(
        latents,
        expected.movedim(3, 1),
        "(image, channel, row, column): latents are not what the pipeline's decoder undoes; scale "
        "and shift in encode_images as the autoencoder's configuration says.",
        rtol=1e-3,
        atol=1e-3,
    )


FAMILY_CHECKS: tuple[Callable[[Any], None], ...] = (
    *BACKEND_CHECKS,
    check_sizes,
    check_noising,
    check_own_call,
    check_own_errors,
    check_round_trip,
)


def check_family(
    pipeline: Any,
    family: Family | None = None,
    *,
    images: Tensor | None = None,
    labels: Sequence[str] | None = None,
    call: Mapping[str, Any] | None = None,
    generate: Generate | None = None,
    scheduler: Any = None,
    skip: Sequence[str] = (),
) -> None:
    """Check that a family gives the network what its pipeline gives it.

    All of :func:`check_backend`, and ``diffusion_classifier.testing.FAMILY_CHECKS`` adds:

    - ``check_sizes``: the image size is known, and the network reads an image of 5 x 7 patches, by
      ``patch_size`` and ``downsampling``.
    - ``check_noising``: noised latents are those of the scheduler of training, within 1e-5.
    - ``check_own_call``: the denoiser has the arguments and the output (but for the sign) that it
      has in three steps of the pipeline's own call, within 1e-5. Tokens that the pipeline's mask
      hides may differ or be left out.
    - ``check_own_errors``: errors follow from the image that the pipeline makes in one step, within
      1e-4.
    - ``check_round_trip``: latents are what the pipeline's decoder undoes, within 1e-3.

    A tiny pipeline with random weights is enough, and takes seconds.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline, str or path
        A pipeline in float32, or its folder. Pickles are checked of folders only.
    family : Family or None, default=None
        Your adapter, used for this check. None: the registered one.
    images : Tensor of shape (B, 3, H, W), default=None
        Two or more images in [-1, 1]; the pipeline's own call makes images of this size too, so
        let H and W differ. None: two random ones of the model's ``image_size``.
    labels : sequence of str, default=None
        Two or more prompts or classes. None: four prompts, or the classes "0" and "1".
    call : mapping or None, default=None
        Arguments of the pipeline's own call that leave out guidance and all that changes prompts
        or images, for example ``{"clean_caption": False}``. ``guidance_scale`` is 1,
        ``output_type`` is "pt", and height and width are those of ``images`` unless given here.
    generate : callable or None, default=None
        ``generate(pipeline, labels, **arguments)`` makes one image per label, for pipelines that
        are called neither with ``prompt`` nor with ``class_labels``.
    scheduler : diffusers.SchedulerMixin or None, default=None
        Scheduler whose single step denoises entirely. None: DDPM, Euler for flows, or EDM with the
        configuration of the pipeline's, without a shift of timesteps.
    skip : sequence of str, default=()
        Names of checks to leave out.

    Raises
    ------
    AssertionError
        If a check fails. The message begins with the check's name and says what to do.
    InputTypeError
        If ``family`` is not a Family.
    InputValueError
        If no family knows the pipeline, or ``skip`` names no check.

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.backends import load_embedded
    >>> from diffusion_classifier.testing import check_family
    >>> pipeline = load_embedded().pipeline
    >>> check_family(pipeline, labels=["a red circle", "a blue square"])
    """
    with registered(family):
        backend = read(pipeline)
        if labels is None and not backend.text_conditional:
            labels = ("0", "1")
        plain = make_subject(backend, images, labels)
        subject = FamilySubject(
            backend, plain.images, plain.labels, plain.company, call or {}, generate, scheduler
        )
        run_checks(FAMILY_CHECKS, skip, subject)


@contextmanager
def registered(family: Family | None) -> Iterator[None]:
    """Use a family while the block lasts."""
    if family is None:
        yield
        return
    register_family(family)
    try:
        yield
    finally:
        FAMILIES.remove(family)


def read(pipeline: Any) -> DiffusersBackend:
    """Make a backend of a pipeline or folder.

    Raises
    ------
    AssertionError
        If its family finds no image size.
    """
    if isinstance(pipeline, str | os.PathLike):
        return DiffusersBackend.from_pretrained(str(pipeline))
    names = [cls.__name__ for cls in type(pipeline).__mro__]
    family = find_family(names, f"this is a {names[0]}")
    try:
        family.image_size(pipeline)
    except (AttributeError, KeyError, TypeError) as error:
        raise AssertionError(
            f"check_sizes: image_size of {type(family).__name__} raised {type(error).__name__}: "
            f"{error}; the configuration of the {family.denoiser} has no sample_size, so override "
            "image_size, and return what the pipeline's own __call__ takes by default."
        ) from error
    return DiffusersBackend(pipeline)
