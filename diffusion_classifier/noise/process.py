r"""Forward processes: how a draw corrupts a latent, and what the network's output says about it.

A diffusion model's process adds noise, and the error is that of the predicted noise
(:mod:`.prediction`). A generator of tokens masks them. Of L tokens x_1 ... x_L, a draw (t, eps)
masks the ``m = t + 1`` places with the smallest eps: the ranks of independent numbers are a random
order. From the network's logits,

    err = L / m * sum over masked i of -log p(x_i | tokens that are not masked, c).

Its mean over orders and over m = 1 ... L is that of ``-log p(x | c)`` over the orders in which the
network, as an any-order autoregressive model, may predict the tokens one by one: given that m are
left, each of them is the next one with equal probability (Ou et al., "Your Absorbing Discrete
Diffusion Secretly Models the Conditional Distributions of Clean Data", arXiv 2406.03736). If the
network's predictions differ between orders, the mean is above that of the mixture of all orders. It
is also the training loss of masked diffusion (Sahoo et al., "Simple and Effective Masked Diffusion
Language Models", arXiv 2406.07524). It is in nats.

An autoregressive network that reads tokens in any order gives all terms of one order's chain rule
in one call, so that a draw is an order (Sudakov et al., "Revisiting Autoregressive Models for
Generative Image Classification", arXiv 2603.19122):

    err = sum over i of -log p(x_i | tokens before i in the order, c).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputValueError
from ..utils.display import short_repr
from .prediction import LOSSES, PREDICTION_TYPES, PredictionType, expand, noise_residual
from .schedule import NoiseSchedule

MASK = -1  # stands in z for a masked token
_LOGITS = "V logits"  # name of the last axis, in messages


class Levels(NamedTuple):
    """Where rows are between image and noise: alpha and sigma (R, 1, ...), and timesteps t (R,)."""

    alpha: Tensor
    sigma: Tensor
    t: Tensor


class Corrupted(NamedTuple):
    """What the network is given, and what its output is compared with, each (R, ...)."""

    z: Tensor
    target: Tensor


class Process(ABC):
    """A forward process; a backend names the one it was trained with as ``prediction_type``.

    A process of your own is added under a name of its own: ``PROCESSES["mine"] = MyProcess()``. Do
    so in the module that defines it: a pickled backend takes it along to other Python processes,
    but whatever reads tables or saved classifiers needs that module imported.

    Attributes
    ----------
    predicts_noise : bool
        Whether errors are losses of predicted noise, of which there are several kinds.
    advice : str
        What to try if the network's errors are not finite.
    """

    predicts_noise = False
    advice = 'Try dtype="bfloat16" or dtype="float32", and check the images and the weights.'

    def check(self, x: Tensor, schedule: NoiseSchedule, first: int = 0) -> None:  # noqa: B027
        """Raise InputValueError if latents x [B, ...] do not fit; by default all do.

        ``first`` is the number of the first image.
        """

    def latents(self, encoded: Any) -> Any:
        """Return what a backend's ``encode`` returned as latents; by default as it is."""
        return encoded

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the factor [J] by which residuals are scaled; 1 by default.

        "native" weights divide by its square.
        """
        return torch.ones_like(alpha)

    def output_shape(self, shape: Sequence[int]) -> tuple[Any, ...]:
        """Return the shape of the network's output for corrupted latents of a shape: the same.

        A name stands for any length, and a last element ``...`` for further axes.
        """
        return tuple(shape)

    @abstractmethod
    def corrupt(self, x: Tensor, noise: Tensor, at: Levels, dtype: torch.dtype) -> Corrupted:
        """Corrupt latents x by the standard normal noise of their draws, both (R, ...).

        ``dtype`` is the network's.
        """

    @abstractmethod
    def terms(self, output: Tensor, target: Tensor, scale: Tensor, loss: str) -> Tensor:
        """Compute errors before they are summed, (R, ...), in float32 or float64.

        ``target`` is of :meth:`corrupt`, ``scale`` (R,), and ``loss`` "l2", "l1" or "huber".
        """

    def errors(self, output: Tensor, target: Tensor, scale: Tensor, loss: str) -> Tensor:
        """Compute the error of each row, the sum of its terms, of shape (R,)."""
        return self.terms(output, target, scale, loss).flatten(1).sum(1)


class GaussianProcess(Process):
    """``z = alpha x + sigma eps``; the error is that of the predicted noise.

    Parameters
    ----------
    kind : PredictionType
        What the network predicts.
    """

    predicts_noise = True

    def __init__(self, kind: PredictionType) -> None:
        self.kind = kind

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.kind.scale(alpha, sigma)

    def corrupt(self, x: Tensor, noise: Tensor, at: Levels, dtype: torch.dtype) -> Corrupted:
        z = (at.alpha * x + at.sigma * noise).to(dtype)
        return Corrupted(z, self.kind.target(x, noise, at.alpha, at.sigma))

    def terms(self, output: Tensor, target: Tensor, scale: Tensor, loss: str) -> Tensor:
        return LOSSES[loss](noise_residual(output, target, scale))


class MaskedTokens(Process):
    """Masks tokens in a random order; the error estimates ``-log p(x | c)``, in nats.

    The network is given tokens as int64, with -1 where they are masked, and returns logits of shape
    (R, ..., V) for a vocabulary of V tokens. ``NoiseSchedule.masking(L)`` is the schedule of L
    tokens.

    Examples
    --------
    Two tokens, of which the second is masked, and a network that knows nothing:

    >>> process, x = MaskedTokens(), torch.tensor([[4.0, 2.0]])
    >>> noise, at = torch.tensor([[0.3, -0.8]]), Levels(*torch.ones(2, 1, 1), torch.tensor([0]))
    >>> z, target = process.corrupt(x, noise, at, torch.float32)
    >>> z.tolist(), target.tolist()
    ([[4, -1]], [[-1, 2]])
    >>> process.errors(torch.zeros(1, 2, 8), target, torch.ones(1), "l2") / torch.tensor(8).log()
    tensor([2.])
    """

    masks = True
    advice = (
        "Tokens must be less than the length of the logits' last axis, the vocabulary, and none "
        "may have probability 0 (a logit of minus infinity). If so, "
        'try dtype="bfloat16" or dtype="float32", and check the weights.'
    )

    def check(self, x: Tensor, schedule: NoiseSchedule, first: int = 0) -> None:
        n_tokens = x[0].numel()
        if self.masks and n_tokens != schedule.n_timesteps:
            raise InputValueError(
                f"image {first} has {n_tokens} tokens, but the schedule has "
                f"{schedule.n_timesteps} levels, one for each number of masked tokens; use "
                f"schedule=NoiseSchedule.masking({n_tokens}), or encode images as "
                f"{schedule.n_timesteps} tokens."
            )
        wanted = NoiseSchedule.masking(schedule.n_timesteps if self.masks else 1).log_snr
        if schedule.log_snr.shape != wanted.shape or not torch.allclose(schedule.log_snr, wanted):
            raise InputValueError(
                "the levels of a schedule of noise would weight errors of tokens wrongly; use "
                f"schedule=NoiseSchedule.masking({len(wanted)})."
            )
        bad = ((x < 0) | (x != x.round())).flatten(1).nonzero()
        if len(bad):
            image, place = bad[0].tolist()
            raise InputValueError(
                f"token {place} of image {first + image} is {x[image].flatten()[place].item():g}; "
                "tokens must be integers from 0 on. encode=... of a FunctionBackend can turn "
                "pictures into tokens."
            )

    def latents(self, encoded: Any) -> Any:
        if not isinstance(encoded, Tensor):
            return encoded
        if encoded.dtype in (torch.float16, torch.bfloat16):
            raise InputValueError(
                f"encode returned tokens in {encoded.dtype}, which rounds large ones to others; "
                "return torch.int64 or torch.float32."
            )
        return encoded if encoded.is_floating_point() else encoded.float()

    def output_shape(self, shape: Sequence[int]) -> tuple[Any, ...]:
        return (*shape, _LOGITS)

    def corrupt(self, x: Tensor, noise: Tensor, at: Levels, dtype: torch.dtype) -> Corrupted:
        is_masked, tokens = _ranks(noise) <= at.t.view(-1, *[1] * (noise.ndim - 1)), x.long()
        return Corrupted(tokens.where(~is_masked, MASK), tokens.where(is_masked, MASK))

    def terms(self, output: Tensor, target: Tensor, scale: Tensor, loss: str) -> Tensor:
        logits = output.to(torch.promote_types(output.dtype, torch.float32)).movedim(-1, 1)
        unknown = target >= logits.shape[1]  # the network gives them no probability
        known = target.masked_fill(unknown, MASK)
        terms = F.cross_entropy(logits, known, ignore_index=MASK, reduction="none")
        share = (target != MASK).flatten(1).to(terms.dtype).mean(1)  # m / L
        return terms.masked_fill(unknown, torch.inf) / expand(share, terms)


class OrderedTokens(MaskedTokens):
    """Gives an autoregressive network tokens and an order; the error is ``-log p`` by that order.

    The network is given ``z`` (R, 2, ...) in int64: tokens, and the place of each in the order,
    from 0 on. Its logits (R, ..., V) for a token may depend on those before it in the order only,
    which nothing here can check. Timesteps have no meaning: ``NoiseSchedule.masking(1)`` has one.

    Examples
    --------
    >>> noise, at = torch.tensor([[0.3, -0.8]]), Levels(*torch.ones(2, 1, 1), torch.tensor([0]))
    >>> OrderedTokens().corrupt(torch.tensor([[4.0, 2.0]]), noise, at, torch.float32).z.tolist()
    [[[4, 2], [1, 0]]]
    """

    masks = False

    def output_shape(self, shape: Sequence[int]) -> tuple[Any, ...]:
        return (shape[0], *shape[2:], _LOGITS)

    def corrupt(self, x: Tensor, noise: Tensor, at: Levels, dtype: torch.dtype) -> Corrupted:
        return Corrupted(torch.stack([x.long(), _ranks(noise)], 1), x.long())


def _ranks(noise: Tensor) -> Tensor:
    """Return the place of each number among those of its row, in rising order."""
    return noise.flatten(1).argsort(stable=True, dim=1).argsort(1).view_as(noise)


PROCESSES: dict[str, Process] = {
    **{name: GaussianProcess(kind) for name, kind in PREDICTION_TYPES.items()},
    "tokens": MaskedTokens(),
    "ordered_tokens": OrderedTokens(),
}
_BUILT_IN = tuple(PROCESSES)


def process_of(prediction_type: Any) -> Process:
    """Return the process of a prediction type.

    Raises
    ------
    InputValueError
        If no process has this name, in this Python process.
    """
    if isinstance(prediction_type, str) and prediction_type in PROCESSES:
        return PROCESSES[prediction_type]
    name = short_repr(prediction_type)
    raise InputValueError(
        f"prediction_type={name} is not known; use one of {', '.join(map(repr, PROCESSES))}. A "
        "process of your own must be named in each Python process that uses it: import the module "
        f"that sets PROCESSES[{name}] before."
    )


def own_process(prediction_type: str) -> Process | None:
    """Return the process of a name that is not built in, if there is one."""
    return None if prediction_type in _BUILT_IN else PROCESSES.get(prediction_type)
