r"""Draw latents from a network: a deterministic solver of its reverse process.

Each step predicts the image and the noise in z, and mixes them at the next, lower level (DDIM, Song
et al., ICLR 2021, arXiv 2010.02502):

    z_s = alpha_s x_hat + sigma_s eps_hat,    t = T - 1 > s > ... > 0.

For rectified flows these are Euler steps. The last x_hat is the drawing. With guidance g
(Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598), predictions under a
prompt move away from those under another, such as the empty one: ``b + g (a - b)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .prediction import PREDICTION_TYPES, PredictionTypeName, expand
from .schedule import NoiseSchedule

N_STEPS = 25
_LEAST_ALPHA = 1e-8  # stands for 0 where a prediction of noise is turned into one of the image


class Parts(NamedTuple):
    """The image and the noise that a network predicts in noised latents."""

    image: Tensor
    noise: Tensor


def predicted_parts(
    output: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, kind: PredictionTypeName
) -> Parts:
    """Split noised latents into the predicted image and noise.

    Parameters
    ----------
    output, z : Tensor of shape (R, ...)
        The network's output for the noised latents z.
    alpha, sigma : Tensor of shape (R,), dtype float64
    kind : {"epsilon", "v_prediction", "sample", "flow"}
        What the network predicts.

    Returns
    -------
    Parts
        With ``z = alpha image + sigma noise``, in float32.

    Examples
    --------
    >>> x, eps, alpha, sigma = (torch.tensor([v]).double() for v in (3.0, -1.0, 0.6, 0.8))
    >>> parts = predicted_parts(eps - x, alpha * x + sigma * eps, alpha, sigma, "flow")
    >>> parts.image.tolist(), parts.noise.tolist()
    ([3.0], [-1.0])
    """
    alpha = alpha.clamp(min=_LEAST_ALPHA)
    scale = PREDICTION_TYPES[kind].scale(alpha, sigma)
    total = alpha**2 + sigma**2
    z, output = z.float(), output.float()
    # Any (x, eps) that add up to z will do as a reference: the output is linear in both.
    x, eps = expand(alpha / total, z) * z, expand(sigma / total, z) * z
    residual = output - PREDICTION_TYPES[kind].target(x, eps, expand(alpha, z), expand(sigma, z))
    return Parts(x - expand(sigma * scale / alpha, z) * residual, eps + expand(scale, z) * residual)


def solver_timesteps(n_timesteps: int, n_steps: int = N_STEPS) -> list[int]:
    """Return at most ``n_steps`` timesteps, evenly spaced from T - 1 down to 0.

    Examples
    --------
    >>> solver_timesteps(1000, 4)
    [999, 666, 333, 0]
    """
    steps = torch.linspace(n_timesteps - 1, 0, min(n_steps, n_timesteps), dtype=torch.float64)
    return steps.round().long().tolist()


def draw_latents(
    predict: Callable[[Tensor, int], Tensor],
    start: Tensor,
    schedule: NoiseSchedule,
    kind: PredictionTypeName,
    n_steps: int = N_STEPS,
) -> Tensor:
    """Draw one latent from each start.

    Parameters
    ----------
    predict : callable
        ``predict(z, t)`` returns the network's output, guided or not, for noised latents
        [R, ...] at one timestep.
    start : Tensor of shape (R, ...)
        Standard normal noise.
    schedule : NoiseSchedule
    kind : {"epsilon", "v_prediction", "sample", "flow"}
    n_steps : int, default=25
        Number of calls of ``predict``.

    Returns
    -------
    Tensor of shape (R, ...), dtype float32

    Examples
    --------
    A network that knows that every image is 3:

    >>> schedule = NoiseSchedule.flow(100)
    >>> start = torch.tensor([[0.5], [-1.0]])
    >>> draw_latents(lambda z, t: torch.full_like(z, 3.0), start, schedule, "sample").tolist()
    [[3.0], [3.0]]
    """
    timesteps = solver_timesteps(schedule.n_timesteps, n_steps)
    levels = [schedule.at(torch.full((len(start),), t)) for t in timesteps]
    z = start.float() * float(schedule.sigma[timesteps[0]])
    parts = Parts(z, z)
    for i, t in enumerate(timesteps):
        parts = predicted_parts(predict(z, t), z, *levels[i], kind)
        if i + 1 < len(timesteps):
            alpha, sigma = (expand(level, z) for level in levels[i + 1])
            z = alpha * parts.image + sigma * parts.noise
    return parts.image
