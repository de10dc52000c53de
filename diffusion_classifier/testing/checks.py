"""The checks of a backend, each of one thing that a race relies on.

A race asks a backend for rows in any order, in batches of any length, on any worker. So the error
of a row must depend on this row alone. It must depend on the row's label, and it must say so when
the network fails. Each check is a function of a :class:`Subject` that raises AssertionError.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import Tensor

from ..backends import Backend, Conditioning, DiffusersBackend, FunctionBackend
from ..backends.base import describe
from ..errors import DiffusionClassifierError
from ..noise import PROCESSES, NoiseSchedule
from .subject import Subject, corrupted, require, require_close, row_errors

HALF = {torch.float16: 5e-3, torch.bfloat16: 5e-2}  # how much errors may change at most


def check_schedule(subject: Subject) -> None:
    """Check that the schedule runs from image to noise and that the prediction type is known."""
    schedule, kind = subject.backend.schedule, subject.backend.prediction_type
    require(
        isinstance(schedule, NoiseSchedule),
        f"schedule is {describe(schedule)}; it must be a NoiseSchedule, for example "
        "NoiseSchedule.from_alphas_cumprod(alphas_cumprod) or NoiseSchedule.flow(1000).",
    )
    require(
        kind in PROCESSES,
        f"prediction_type={kind!r} must be one of {', '.join(map(repr, PROCESSES))}.",
    )
    last = schedule.log_snr[-1].item()
    require(
        last <= 0,
        f"the last timestep, t={schedule.n_timesteps - 1}, has more image than noise (log-SNR "
        f"{last:.3g}); give the schedule of training, which ends in noise. Of a diffusers "
        "scheduler, that is alphas_cumprod, not alphas.",
    )


def check_latents(subject: Subject) -> None:
    """Check that images give finite float32 latents, the same each time and in each batch."""
    backend = subject.backend
    latents = backend.encode_images(subject.images.clone())
    require(
        isinstance(latents, Tensor) and latents.ndim > 1 and len(latents) == len(subject.images),
        f"encode_images returned {describe(latents)} for {len(subject.images)} images; return a "
        "tensor [B, ...] with one latent per image.",
    )
    require(
        latents.dtype in (torch.float32, torch.float64),
        f"encode_images returned {latents.dtype} latents; return float32 also where the network "
        "computes in half precision: latents.float().",
    )
    bad = ~torch.isfinite(latents).flatten(1).all(1)
    require(
        not bad.any(),
        f"the latent of image {int(bad.int().argmax())} has NaN or infinity; check the encoder's "
        "weights and dtype (some autoencoders need float32).",
    )
    again = backend.encode_images(subject.images.clone())
    require(
        torch.equal(latents, again),
        "encode_images gives other latents of the same images when called again; return the mode "
        "of the autoencoder's posterior rather than a sample.",
    )
    for k in range(len(latents)):
        alone = backend.encode_images(subject.images[k : k + 1].clone())
        require_close(
            alone,
            latents[k : k + 1],
            f"the latent of image {k} depends on the images beside it; encode each by itself.",
            rtol=1e-4,
            atol=1e-4,
        )


def check_conditions(subject: Subject) -> None:
    """Check that there is one condition per label, and that conditions can be picked and joined."""
    condition = subject.encode(subject.labels)
    require(
        isinstance(condition, Conditioning),
        f"encode_classes returned {describe(condition)}; return a Conditioning(name=tensor, ...).",
    )
    n = len(subject.labels)
    require(
        len(condition) == n,
        f"encode_classes returned {len(condition)} conditions for {n} labels; the first axis of "
        "every tensor is the prompt (pass num_images_per_prompt=1 and no guidance).",
    )
    parts = [condition[torch.tensor([p])] for p in range(n)]
    joined = Conditioning.concatenate(parts)
    for name, tensor in condition.tensors.items():
        require(
            torch.equal(joined[name], tensor),
            f"the tensor {name!r} of the conditions changes when its rows are picked and joined; "
            "its first axis must be the prompt.",
        )


def check_company(subject: Subject) -> None:
    """Check that a label's errors do not depend on the labels that are encoded with it."""
    label, other = subject.labels[0], subject.company
    rows, found = subject.rows(labels=[label]), []
    for group in ([label], [label, other], [other, label]):
        place = torch.full((len(rows.x),), group.index(label), device=rows.t.device)
        condition = rows.condition if len(group) == 1 else subject.encode(group)[place]
        found.append(row_errors(subject.backend, rows._replace(condition=condition)))
    alone, *beside = found
    for errors, where in zip(beside, ("before", "after"), strict=True):
        off = ((errors - alone) / alone).abs().max().item()
        require(
            off <= 1e-5,
            f"errors of {label!r} change by {off:.2g} of their size when it is encoded {where} "
            f"{other!r}; encode prompts one by one, or pad all to one length with a mask that the "
            "network reads.",
        )


def check_batches(subject: Subject) -> None:
    """Check that a batch of rows gives the errors of its rows one by one."""
    rows, together = subject.own_rows, subject.own_errors.flatten()
    for r in range(0, len(rows.x), max(1, len(rows.x) // 5)):
        require_close(
            row_errors(subject.backend, rows.pick(slice(r, r + 1))),
            together[r : r + 1],
            f"the error of row {r} (t={rows.t[r].item()}) alone is not that in a batch of "
            f"{len(rows.x)}; rows must not see each other. Call eval() on a network with batch "
            "normalisation or dropout, and read t and the condition of each row.",
        )


def check_order(subject: Subject) -> None:
    """Check that conditions follow the order of labels, and errors that of rows."""
    rows, n = subject.own_rows, len(subject.labels)
    errors = subject.own_errors.flatten()
    back = torch.arange(len(errors) - 1, -1, -1, device=rows.t.device)
    require_close(
        row_errors(subject.backend, rows.pick(back)),
        errors[back],
        "errors of rows in reverse order are not the same errors in reverse order; the network's "
        "answer for a row must not depend on its place in the batch.",
    )
    shape = (len(subject.images), n, -1)
    reverse = row_errors(subject.backend, subject.rows(labels=subject.labels[::-1]))
    require_close(
        reverse.view(shape).flip(1),
        errors.view(shape),
        "(image, label, timestep): errors of the same labels in reverse order; condition p of "
        "encode_classes must be that of prompt p.",
    )


def check_labels_matter(subject: Subject) -> None:
    """Check that errors differ between labels."""
    errors = subject.own_errors
    spread = (errors.amax(1) / errors.amin(1) - 1).amax(1)
    worst = int(spread.argmin())
    require(
        spread[worst] > 1e-6,
        f"image {worst} has the same errors for all of {list(subject.labels)}; the network must "
        "read the condition that forward is given.",
    )


def check_inputs_unchanged(subject: Subject) -> None:
    """Check that encoding and the network leave what they are given as it was."""
    backend, images = subject.backend, subject.images.clone()
    backend.encode_images(images)
    require(
        torch.equal(images, subject.images),
        "encode_images changed the images that it was given; copy them before in-place operations.",
    )
    labels = list(subject.labels)
    prompts = [str(label) for label in labels]
    backend.encode_classes(labels, prompts)
    require(
        labels == list(subject.labels) and prompts == [str(label) for label in labels],
        "encode_classes changed the list of labels or prompts; pass list(prompts) on (some "
        "pipelines write their templates into the list).",
    )
    rows = subject.own_rows
    given = {"z": corrupted(backend, rows).z, "t": rows.t, **rows.condition.tensors}
    before = {name: tensor.clone() for name, tensor in given.items()}
    with torch.inference_mode():
        backend.forward(given["z"], given["t"], rows.condition)
    for name, tensor in before.items():
        require(
            torch.equal(given[name], tensor),
            f"forward changed {name!r} in place; draws and conditions are shared by all rows, so "
            "copy before in-place operations (z = z + 1 rather than z += 1).",
        )


def check_precision(subject: Subject) -> None:
    """Check that half precision changes errors by little: 0.5 % in float16, 5 % in bfloat16.

    Only where the network is a module: a diffusers pipeline, or a FunctionBackend of one.
    """
    expected = subject.own_errors
    require(expected.dtype in (torch.float32, torch.float64), f"errors are {expected.dtype}.")
    dimensions = subject.own_rows.x[0].numel()
    for dtype, bound in HALF.items():
        twin = half_twin(subject.backend, dtype)
        if twin is None:
            return
        require(twin.dtype == dtype, f"dtype is {twin.dtype} although the networks are in {dtype}.")
        require_close(
            subject.all_errors(twin),
            expected,
            f"(image, label, timestep): the error in {dtype} must be within {bound:.1%} of that in "
            "float32. Compute times and positions in float32, and cast only what the layers read.",
            rtol=bound,
            atol=bound * dimensions / 10,
        )


def half_twin(backend: Backend, dtype: torch.dtype) -> Backend | None:
    """Return the backend with its networks in half precision; None if there are none."""
    if backend.dtype != torch.float32:
        return None
    if isinstance(backend, DiffusersBackend):
        pipeline = copy.copy(backend.pipeline)
        for name, part in backend.pipeline.components.items():
            if isinstance(part, torch.nn.Module):
                setattr(pipeline, name, in_half(part, dtype))
        return DiffusersBackend(pipeline)
    if isinstance(backend, FunctionBackend) and isinstance(backend.function, torch.nn.Module):
        if next(backend.function.parameters(), None) is None:
            return None  # parameters say the dtype: without any, a FunctionBackend runs in float32
        parameters = backend.get_params(deep=False)
        network = copy.deepcopy(backend.function).to(dtype)
        return type(backend)(**parameters | {"function": network})
    return None


def in_half(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Return a copy in half precision, but for layers that from_pretrained keeps in float32."""
    twin = copy.deepcopy(network).to(dtype)
    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    for name, module in twin.named_modules():
        if not kept.isdisjoint(name.split(".")):
            module.float()
    return twin


def check_nan(subject: Subject) -> None:
    """Check that NaN in the network is not hidden, so that the classifier can refuse it."""
    rows = subject.own_rows
    if not corrupted(subject.backend, rows).z.is_floating_point():
        return  # tokens are integers
    z = torch.full_like(rows.x, torch.nan).to(subject.backend.dtype)
    try:
        with torch.inference_mode():
            output = subject.backend.forward(z, rows.t, rows.condition)
    except (DiffusionClassifierError, FloatingPointError):
        return
    finite = torch.isfinite(output).flatten(1).all(1)
    require(
        not finite.any(),
        f"forward turned NaN latents into finite outputs (row {int(finite.int().argmax())}); leave "
        "out nan_to_num and clamp, which hide a failing network behind a confident answer.",
    )


def check_pickle_and_clone(subject: Subject) -> None:
    """Check that pickles and clones, which workers use, give the same errors.

    Pipelines made in memory are cloned only, and fitted backends pickled only: clones of these
    are not fitted.
    """
    backend, expected = subject.backend, subject.own_errors
    twins = {"clone": clone(backend)}
    if not isinstance(backend, DiffusersBackend) or backend.saved_origin() is not None:
        try:
            twins["pickle"] = pickle.loads(pickle.dumps(backend))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise AssertionError(
                f"the backend cannot be pickled ({error}), so n_jobs and clusters cannot use it; "
                "define its functions and classes at the top of a module that workers can import."
            ) from error
    for name, twin in twins.items():
        try:
            errors = subject.all_errors(twin)
        except NotFittedError:
            continue
        require_close(
            errors,
            expected,
            f"(image, label, timestep): the errors of a {name} are not the backend's own; __init__ "
            "parameters and __getstate__ must keep all that errors depend on.",
            rtol=0,
            atol=0,
        )


BACKEND_CHECKS: tuple[Callable[[Subject], None], ...] = (  # causes before what follows from them
    check_schedule,
    check_latents,
    check_conditions,
    check_company,
    check_batches,
    check_order,
    check_labels_matter,
    check_inputs_unchanged,
    check_precision,
    check_nan,
    check_pickle_and_clone,
)
