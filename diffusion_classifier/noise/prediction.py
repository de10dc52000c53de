r"""Noise-prediction errors from network outputs.

Given ``z = alpha x + sigma eps``, a network predicts one of four targets. Each prediction
implies a noise ``eps_hat``, whose residual is a multiple of the prediction's residual:

| prediction type | target              | eps_hat - eps                                    |
|-----------------|---------------------|--------------------------------------------------|
| epsilon         | eps                 | output - target                                  |
| v_prediction    | alpha eps - sigma x | alpha / (alpha^2 + sigma^2) * (output - target)  |
| sample          | x                   | -alpha / sigma * (output - target)               |
| flow            | eps - x             | alpha / (alpha + sigma) * (output - target)      |

The error is the loss of the noise residual, *summed* over the dimensions of the latent. It is
computed in float32 even for half-precision networks, because the gaps between classes are far
smaller than the resolution of half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# What a network outputs. Tokens are no predictions of noise: see .process.
PredictionTypeName = Literal[
    "epsilon", "v_prediction", "sample", "flow", "tokens", "ordered_tokens"
]


class PredictionType(NamedTuple):
    """The target of a network, and the factor from its residual to the noise residual."""

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (x, eps, alpha, sigma)
    scale: Callable[[Tensor, Tensor], Tensor]  # (alpha, sigma)

    def __reduce__(self) -> Any:
        """Pickle a type of the table below by its name: its functions have none."""
        names = [name for name, kind in PREDICTION_TYPES.items() if kind is self]
        return (_of_name, (names[0],)) if names else tuple.__reduce_ex__(self, 2)


PREDICTION_TYPES: dict[PredictionTypeName, PredictionType] = {
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


def _of_name(name: PredictionTypeName) -> PredictionType:
    return PREDICTION_TYPES[name]


def expand(level: Tensor, like: Tensor) -> Tensor:
    """Reshape levels [R] to [R, 1, ...], on the device and in the dtype of ``like`` [R, ...]."""
    if level.device != like.device or level.dtype != like.dtype:
        level = level.to(device=like.device, dtype=like.dtype, non_blocking=True)
    return level.view(-1, *[1] * (like.ndim - 1))


def noise_residual(output: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """Return ``eps_hat - eps``, shaped like ``output``, in float32 (float64 if it is float64)."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    residual = output.to(dtype) - target.to(dtype)
    return residual * expand(scale, residual)


def noise_errors(output: Tensor, target: Tensor, scale: Tensor, loss: str) -> Tensor:
    """Compute the loss of the noise residual, summed over dimensions.

    Parameters
    ----------
    output, target : Tensor of shape (R, ...)
        The network's output and its target, in any floating dtype.
    scale : Tensor of shape (R,)
        ``PREDICTION_TYPES[...].scale(alpha, sigma)`` of each row.
    loss : {"l2", "l1", "huber"}

    Returns
    -------
    Tensor of shape (R,), dtype float32 (float64 for float64 outputs)
    """
    residual = noise_residual(output, target, scale)
    return LOSSES[loss](residual).flatten(1).sum(1)
