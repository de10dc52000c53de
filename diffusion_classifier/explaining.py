r"""Evidence maps: where in a picture one class beats another.

The difference of two class losses is a sum over the places i of the latent's grid. With r the
noise residual ``eps_hat - eps`` of a draw, and w the weight divided by the density of its timestep,

    (L_b - L_a) / T  =  sum_i e_i,      e_i = 1/T mean_j w_j sum_channels (r_bji^2 - r_aji^2),

which is log p(x | a) - log p(x | b), in nats, as far as the losses are log-likelihoods; priors are
left out. (Other losses replace the square.) The engine keeps sums over the whole latent only, so
this module evaluates two classes once more, on the same draws, and keeps the grid.

Draws of one round depend on each other, rounds do not. The standard error of each e_i is therefore
computed from its means over rounds, as in :mod:`diffusion_classifier.records.certificate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .backends.base import Conditioning, check_output
from .classifier import DiffusionClassifier
from .errors import InputTypeError, InputValueError, NonFiniteOutputError
from .estimator.predicting import Predictor
from .images.latents import Latents
from .noise.draws import Draws
from .noise.prediction import expand, noise_residual
from .noise.process import Levels, process_of
from .noise.variational import VariationalBound
from .pruners import NoPruning
from .race.batches import BatchSize, encode_from
from .race.memory import network_memory
from .utils.display import short_repr


class Evidence(NamedTuple):
    """Evidence for one class over another, at each place of the latent's grid.

    Attributes
    ----------
    nats : ndarray of shape (H, W), dtype float64
        Positive where the first class explains the picture better.
    standard_error : ndarray of shape (H, W), dtype float64
        Standard error of ``nats`` over draws, in nats; NaN after a single round.

    Examples
    --------
    >>> evidence = Evidence(np.array([[3.0, -0.1]]), np.array([[0.5, 0.2]]))
    >>> evidence.nats.sum().item()
    2.9
    """

    nats: NDArray[np.float64]
    standard_error: NDArray[np.float64]


def explain(
    clf: DiffusionClassifier, image: Any, a: Any, b: Any, *, n_draws: int | None = None
) -> Evidence:
    """Compute where in a picture class ``a`` beats class ``b``.

    Every prompt of the two classes is evaluated on every draw, without pruning.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted.
    image : image
        One image in any form that ``DiffusionClassifier.predict`` reads in a list, or Latents of
        one image. For backends that read arrays, one array.
    a, b : labels
        Two of ``clf.classes_``.
    n_draws : int, optional
        Number of draws. By default the pruner's ``max_draws``.

    Returns
    -------
    Evidence
        Two arrays of shape (H, W), in nats: the evidence, and its standard error. H and W are
        those of the latent, which models such as Stable Diffusion make 8 times smaller than the
        picture. The evidence adds up to the difference of the two class losses of
        ``clf.errors([image], full=True)``, divided by the temperature, without priors. If several
        prompts of a class race individually (``prompt_reduction`` "best" and "mixture"), it
        compares the best prompt of each class.

    Raises
    ------
    InputTypeError
        If ``clf`` is not a DiffusionClassifier.
    InputValueError
        If ``a`` or ``b`` is not a class, both are the same, there is more than one image, or the
        latents have no grid, as rows of a table.
    NonFiniteOutputError
        If the network returns NaN or infinity.

    References
    ----------
    A. C. Li, M. Prabhudesai, S. Duggal, E. Brown and D. Pathak, "Your Diffusion Model is
    Secretly a Zero-Shot Classifier", ICCV 2023, arXiv 2303.16203.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.explaining import explain
    >>> scenes = load_scenes("test", n_samples=1)
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["three", "five", "eight"])
    >>> nats, standard_error = explain(clf, scenes.images[0], "eight", "three", n_draws=8)
    >>> nats.shape
    (8, 8)
    """
    if not isinstance(clf, DiffusionClassifier):
        raise InputTypeError(f"clf must be a DiffusionClassifier, not {short_repr(clf)}.")
    predictor = clf._predictor()
    if n_draws is not None:
        predictor = replace(predictor, pruner=NoPruning(n_draws))
    chosen = [_column(clf, name, label) for name, label in (("a", a), ("b", b))]
    if chosen[0] == chosen[1]:
        raise InputValueError(f"a and b are both {short_repr(a)}; give two different classes.")
    scoring = predictor.setup.scoring
    class_of = scoring.class_of
    prompts = torch.cat([(class_of == column).nonzero()[:, 0] for column in chosen])
    latent = _latent(predictor, image)
    sizes, sums = _round_sums(predictor, latent, prompts)
    is_first = class_of[prompts] == chosen[0]
    one, other = (
        _of_class(sums[:, own], mean=scoring.races_classes) for own in (is_first, ~is_first)
    )
    n, n_rounds = int(sizes.sum()), len(sizes)
    differences = (other - one) / scoring.temperature(n)
    mean = differences.sum(0) / n
    excess = (differences - sizes[:, None, None] * mean) / n
    variance = (excess**2).sum(0) * n_rounds / max(n_rounds - 1, 1)
    error = variance.sqrt() if n_rounds > 1 else torch.full_like(mean, torch.nan)
    return Evidence(mean.numpy(), error.numpy())


def _column(clf: DiffusionClassifier, name: str, label: Any) -> int:
    """Return the place of a label in ``classes_``."""
    found = [column for column, known in enumerate(clf.classes_.tolist()) if known == label]
    if not found:
        raise InputValueError(
            f"{name}={short_repr(label)} is not a class of this classifier; choose from classes_: "
            f"{short_repr(clf.classes_.tolist())}."
        )
    return found[0]


def _latent(predictor: Predictor, image: Any) -> Tensor:
    """Return the latent [C, H, W] of one image."""
    X = image
    if not isinstance(image, Latents):
        X = np.asarray(image)[None] if predictor.inputs.backend.input_kind == "array" else [image]
    with predictor.inputs.open(X) as (n_images, encode, *_), torch.inference_mode():
        if n_images != 1:
            raise InputValueError(f"give one image, not {n_images}: a map belongs to one image.")
        (latent,) = encode_from(encode, 0, 1, BatchSize.of_encoder(predictor.batch_size))
    if latent.ndim != 3:
        raise InputValueError(
            f"this backend has latents of shape {tuple(latent.shape)}, which have no grid to map; "
            "evidence maps need latents of shape (channels, height, width)."
        )
    return latent


def _round_sums(predictor: Predictor, latent: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the weighted losses of prompts over the draws of each round.

    Returns
    -------
    Tensor of shape (R,)
        Number of draws of each round.
    Tensor of shape (R, P, H, W), dtype float64
        Sums over draws and channels.
    """
    backend, weights = predictor.inputs.backend, predictor.setup.scoring.weights
    condition = predictor.condition[prompts].to(backend.device)
    memory = network_memory(backend, backend.device, latent.shape, condition)
    batch = BatchSize.of_network(
        predictor.batch_size,
        backend.device,
        latent.numel(),
        compiled=backend.compiled,
        memory=memory,
    )
    rounds, sums = list(predictor.tape()), []
    first = 0
    while first < len(rounds):  # as many rounds at a time as fill a batch
        stop = first + max(1, batch.rows // (len(rounds[first]) * len(prompts)))
        group, first = rounds[first:stop], stop
        maps = torch.cat(list(_maps(predictor, latent, group, condition, batch)))
        maps = maps.view(-1, len(prompts), *latent.shape[1:]).double()
        for draws, part in zip(group, maps.split([len(draws) for draws in group]), strict=True):
            scale = weights[draws.timesteps] / draws.density
            sums.append((part * scale[:, None, None, None]).sum(0))
            if not bool(sums[-1].isfinite().all()):
                raise NonFiniteOutputError(
                    "the network returned NaN or infinity, at one of the timesteps "
                    f"{draws.timesteps.tolist()}. Check the image and the weights, and try "
                    'dtype="bfloat16" or dtype="float32".'
                )
    return torch.tensor([len(draws) for draws in rounds]), torch.stack(sums)


@torch.inference_mode()
def _maps(
    predictor: Predictor,
    latent: Tensor,
    rounds: Sequence[Draws],
    condition: Conditioning,
    batch: BatchSize,
) -> Iterator[Tensor]:
    """Yield the losses of rounds, draw by draw and prompt by prompt, batch by batch.

    Each batch is [rows, H, W], summed over channels, in float32 on the CPU.
    """
    backend, loss = predictor.inputs.backend, predictor.setup.loss
    process, name = process_of(backend.prediction_type), f"{type(backend).__name__}.forward"
    bound = VariationalBound(backend.schedule) if loss == "vlb" else None
    timesteps = torch.cat([draws.timesteps for draws in rounds])
    alpha, sigma = backend.schedule.at(timesteps)
    scale = process.scale(alpha, sigma).float().to(backend.device)
    noise = torch.cat([draws.noise(latent.shape) for draws in rounds]).to(latent)
    alpha, sigma = expand(alpha, noise), expand(sigma, noise)
    clean = latent.expand_as(noise)
    times, n_prompts = timesteps.to(backend.device), len(condition)
    process.check(latent[None], backend.schedule)
    z, target = process.corrupt(clean, noise, Levels(alpha, sigma, times), backend.dtype)
    n_rows = len(times) * n_prompts
    start = 0
    while start < n_rows:

        def evaluate(most: int, start: int = start) -> Tensor:
            stop = min(start + most, n_rows)
            row = torch.arange(start, start + batch.padded(stop - start), device=z.device)
            row = row.clamp(max=stop - 1)
            draw, prompt = row // n_prompts, row % n_prompts
            inputs = z[draw], times[draw], condition[prompt]
            if bound is None:
                shape = process.output_shape(inputs[0].shape)
                output = check_output(backend.forward(*inputs), shape, name)
                losses = process.terms(output, target[draw], scale[draw], loss)
            else:
                output, variance = backend.forward_with_variance(*inputs)
                residual = noise_residual(output, target[draw], scale[draw])
                losses = bound.terms(residual, variance, clean[draw], times[draw])
            return losses[: stop - start].sum(1).cpu()

        maps = batch.attempt(evaluate)
        start += len(maps)
        yield maps


def _of_class(sums: Tensor, *, mean: bool) -> Tensor:
    """Reduce the sums of a class's prompts [R, P, H, W] to [R, H, W]: their mean, or the best."""
    return sums.mean(1) if mean else sums[:, sums.sum((0, 2, 3)).argmin()]
