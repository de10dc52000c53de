r"""From a network's output to its noise-prediction error.

With ``z = alpha x + sigma eps``, a network predicts one of four targets; each prediction
implies a noise ``eps_hat``, and the residual in noise space is a multiple of its own:

| prediction type | target              | eps_hat - eps                                    |
|-----------------|---------------------|--------------------------------------------------|
| epsilon         | eps                 | output - target                                  |
| v_prediction    | alpha eps - sigma x | alpha / (alpha^2 + sigma^2) * (output - target)  |
| sample          | x                   | -alpha / sigma * (output - target)               |
| flow            | eps - x             | alpha / (alpha + sigma) * (output - target)      |

The error is the loss of that residual *summed* over the latent's dimensions, in float32
even if the network's own dtype is shorter: class gaps are far below half precision's steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PredictionType(NamedTuple):
    """What the network predicts, and how its residual scales to that of the noise."""

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (x, eps, alpha, sigma)
    scale: Callable[[Tensor, Tensor], Tensor]  # (alpha, sigma)


PREDICTION_TYPES = {
    "epsilon": PredictionType(
        target=lambda x, eps, alpha, sigma: eps,
        scale=lambda alpha, sigma: torch.ones_like(alpha),
    ),
    "v_prediction": PredictionType(
        target=lambda x, eps, alpha, sigma: alpha * eps - sigma * x,
        scale=lambda alpha, sigma: alpha / (alpha**2 + sigma**2),
    ),
    "sample": PredictionType(
        target=lambda x, eps, alpha, sigma: x,
        scale=lambda alpha, sigma: -alpha / sigma,
    ),
    "flow": PredictionType(
        target=lambda x, eps, alpha, sigma: eps - x,
        scale=lambda alpha, sigma: alpha / (alpha + sigma),
    ),
}

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": torch.square,
    "l1": torch.abs,
    "huber": lambda r: F.huber_loss(r, torch.zeros_like(r), reduction="none"),
}


def expand(level: Tensor, like: Tensor) -> Tensor:
    """Per-row levels [R] as [R, 1, ...] in ``like``'s dtype, ready to multiply its rows."""
    return level.to(device=like.device, dtype=like.dtype).view(-1, *[1] * (like.ndim - 1))


def noise_residual(output: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """``eps_hat - eps`` in the shape of ``output``, float32 (float64 for float64 outputs)."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    residual = output.to(dtype) - target.to(dtype)
    return residual * expand(scale, residual)


def noise_errors(output: Tensor, target: Tensor, scale: Tensor, loss: str) -> Tensor:
    """Loss of the noise residual, summed over dimensions.

    Parameters
    ----------
    output, target : Tensor of shape (R, ...)
        The network's output, in any floating dtype, and what it should have been.
    scale : Tensor of shape (R,)
        ``PREDICTION_TYPES[...].scale(alpha, sigma)`` for each row.
    loss : {"l2", "l1", "huber"}

    Returns
    -------
    Tensor of shape (R,), dtype float32 (float64 for float64 outputs)
    """
    residual = noise_residual(output, target, scale)
    return LOSSES[loss](residual).flatten(1).sum(1)
