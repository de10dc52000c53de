r"""Class losses and log posteriors, from recorded errors.

The contribution ``c_pj`` of draw j to prompt p, the loss ``L_p`` and the log posterior are

    c_pj = w(t_j) / q_j * err_pj - T log prior(class of p),    L_p = mean_j c_pj,
    log p(class | x) = log_softmax(-L / T),

so ``-L_p / T`` estimates ``log p(x | prompt) / T + log prior`` up to a constant. The temperature T
tempers the network's likelihood, but not the priors. With a natural temperature, it is T times the
image's own doubt (:mod:`diffusion_classifier.scoring.natural`).

A dropped prompt has fewer draws than the winner, and means over different draws are not comparable.
Its loss is therefore that of the prompt that led when it was dropped, plus their mean difference on
the draws that both took. It is kept above the loss of the best survivor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import InputValueError
from ..utils.constraints import as_numbers
from ..utils.display import short_repr
from .calibration import Calibrator, temperature
from .natural import Unit, doubt
from .weighting import ExponentialWeighting, LikelihoodWeighting, NativeWeighting, Weighting

LossName = Literal["l2", "l1", "huber", "vlb"]  # "vlb" also scores the predicted variance
LOSS_NAMES: tuple[str, ...] = get_args(LossName)
PromptReduction = Literal["best", "mean", "mixture", "embedding"]
# "embedding" reduces prompts before they race; to a Scoring, each class then has one prompt.
PROMPT_REDUCTIONS: tuple[str, ...] = get_args(PromptReduction)[:3]
_MARGIN = 1e-9  # relative distance by which dropped classes stay behind the best survivor


@dataclass(frozen=True)
class Scoring:
    """The parameters that turn errors into class losses and log posteriors.

    The *contenders* of a race are its prompts, or its classes if ``reduction`` is "mean".

    Attributes
    ----------
    weights : Tensor of shape (T,), dtype float64
        Weight w(t) of each timestep.
    log_prior : Tensor of shape (K,), dtype float64
        Log prior probability of each class.
    class_of : Tensor of shape (P,), dtype int64
        Class index of each prompt.
    reduction : {"best", "mean", "mixture"}, default="best"
        Loss of a class, given those of its prompts: the smallest, the mean, or that of a mixture
        with equal weights, ``-T log mean_p exp(-L_p / T)``.
    log_temperature : tuple of (float, float), default=(0.0, 0.0)
        Coefficients ``(a, b)`` of ``log T = a + b log n`` after n draws; see
        :mod:`diffusion_classifier.scoring.calibration`.
    unit : {"given", "nats", "natural"}, default="given"
        Where T comes from: given or learned, 1 for losses that are in nats, or the natural one,
        which images multiply by their doubt.
    """

    weights: Tensor
    log_prior: Tensor
    class_of: Tensor
    reduction: str = "best"
    log_temperature: tuple[float, float] = (0.0, 0.0)
    unit: Unit = "given"

    @property
    def n_classes(self) -> int:
        """The number of classes K."""
        return len(self.log_prior)

    @property
    def races_classes(self) -> bool:
        """Whether classes race as a whole, instead of prompts."""
        return self.reduction == "mean"

    def temperature(self, n_draws: int) -> float:
        """Compute T after ``n_draws`` draws."""
        return float(temperature(self.log_temperature, n_draws))

    def calibrated(self, calibrator: Calibrator) -> Scoring:
        """Return this scoring with the temperature of a calibrator that knows it."""
        return replace(self, log_temperature=calibrator.log_temperature_, unit=calibrator.unit)

    def contributions(
        self, errors: Tensor, timesteps: Tensor, density: Tensor, log_prior: Tensor | None = None
    ) -> Tensor:
        """Compute the contributions of contenders.

        Parameters
        ----------
        errors : Tensor of shape (..., P, J)
            Errors of prompts; NaN where not evaluated.
        timesteps, density : Tensor of shape (J,)
            Timestep of each draw, and its proposal probability relative to the uniform one.
        log_prior : Tensor of shape (..., K), optional
            Log priors of each image; by default those of the scoring.

        Returns
        -------
        Tensor of shape (..., P or K, J), dtype float64
        """
        weighted = errors.double() * (self.weights[timesteps] / density)
        log_prior = self.log_prior if log_prior is None else log_prior
        prior = self.temperature(errors.shape[-1]) * log_prior
        weighted = weighted - prior[..., self.class_of, None]
        if not self.races_classes:
            return weighted
        shape = (*weighted.shape[:-2], self.n_classes, weighted.shape[-1])
        sums = weighted.new_zeros(shape).index_add(-2, self.class_of, weighted)
        return sums / self.class_of.bincount()[:, None]

    def contenders(self, active: Tensor) -> Tensor:
        """Convert active prompts [..., P] to active contenders [..., P or K]."""
        if not self.races_classes:
            return active
        first_prompt = torch.searchsorted(self.class_of, torch.arange(self.n_classes))
        return active[..., first_prompt]

    def prompts(self, contenders: Tensor) -> Tensor:
        """Convert active contenders [..., P or K] to active prompts [..., P]."""
        return contenders[..., self.class_of] if self.races_classes else contenders

    def decided(self, active: Tensor) -> Tensor:
        """Return whether all active prompts [..., P] belong to one class."""
        lowest = torch.where(active, self.class_of, self.n_classes).amin(-1)
        highest = torch.where(active, self.class_of, -1).amax(-1)
        return lowest == highest

    def class_losses_of(
        self, errors: Tensor, timesteps: Tensor, density: Tensor, active: Tensor
    ) -> Tensor:
        """Compute the class losses [K] of one image from errors [P, J] and final active [P]."""
        n = count_draws(errors)
        contributions = self.contributions(errors[:, :n], timesteps[:n], density[:n])
        return self.class_losses(contributions, self.contenders(active))

    def log_posterior_of(
        self, errors: Tensor, timesteps: Tensor, density: Tensor, active: Tensor
    ) -> Tensor:
        """Compute the log posterior [K] of one image from errors [P, J] and final active [P]."""
        n = count_draws(errors)
        contributions = self.contributions(errors[:, :n], timesteps[:n], density[:n])
        contenders, temperature = self.contenders(active), self.temperature(n)
        losses = self.class_losses(contributions, contenders)
        if self.unit == "natural":
            factor = self.doubt_of(contributions, timesteps[:n])
            prior = temperature * self.log_prior
            doubted = (losses + prior) / factor - prior
            # Doubt gives priors more weight, but a class that the race dropped cannot win.
            losses = put_behind(doubted, self._surviving(contenders), temperature)
        return torch.log_softmax(-losses / temperature, 0)

    def doubt_of(self, contributions: Tensor, timesteps: Tensor) -> float:
        """Compute by how much an image's temperature exceeds T, from contributions [P or K, n]."""
        if self.unit != "natural":
            return 1.0
        class_of = torch.arange(self.n_classes) if self.races_classes else self.class_of
        temperature = self.temperature(contributions.shape[1])
        return doubt(contributions / temperature, timesteps, class_of)

    def class_losses(self, contributions: Tensor, active: Tensor) -> Tensor:
        """Compute the class losses of one image.

        Parameters
        ----------
        contributions : Tensor of shape (P or K, J), dtype float64
            Contributions of each contender.
        active : Tensor of shape (P or K,), dtype bool
            Contenders still active at the end of the race.

        Returns
        -------
        Tensor of shape (K,), dtype float64
            Finite losses. The smallest is always that of a class with an active contender.
        """
        temperature = self.temperature(contributions.shape[1])
        losses = contender_losses(contributions, active, temperature)
        if self.races_classes:
            return losses
        best = losses.new_zeros(self.n_classes).scatter_reduce(
            0, self.class_of, losses, "amin", include_self=False
        )
        if self.reduction == "best":
            return best
        shares = torch.zeros_like(best).index_add(
            0, self.class_of, torch.exp((best[self.class_of] - losses) / temperature)
        )
        mixed = best - temperature * torch.log(shares / self.class_of.bincount())
        return put_behind(mixed, self._surviving(active), temperature)

    def _surviving(self, contenders: Tensor) -> Tensor:
        """Return which classes [K] have an active contender."""
        if self.races_classes:
            return contenders
        surviving = torch.zeros(self.n_classes, dtype=torch.bool)
        surviving[self.class_of[contenders]] = True
        return surviving


def check_loss(weighting: Weighting, loss: str) -> None:
    """Raise an InputValueError if ``weighting`` does not apply to errors of this loss."""
    if isinstance(weighting, LikelihoodWeighting) and loss != "l2":
        raise InputValueError(f'weighting="likelihood" needs loss="l2", not {loss!r}.')
    if isinstance(weighting, ExponentialWeighting | NativeWeighting) and loss == "vlb":
        raise InputValueError(
            f"{weighting!r} rescales noise-prediction errors, but loss='vlb' is a log-likelihood "
            'already; use weighting="uniform" or "fitted".'
        )


def count_draws(errors: Tensor) -> int:
    """Count the draws of an image on which any prompt was evaluated, from its errors [P, J]."""
    return int((~errors.isnan()).sum(1).max())


def contender_losses(contributions: Tensor, active: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute comparable losses of contenders that took different numbers of draws.

    Parameters
    ----------
    contributions : Tensor of shape (P, J), dtype float64
        Contributions; NaN after the last draw of each contender.
    active : Tensor of shape (P,), dtype bool
        Contenders still active at the end of the race, which took all draws.
    temperature : float, default=1.0
        Temperature that losses are divided by later; it scales the margin of the winner.

    Returns
    -------
    Tensor of shape (P,), dtype float64
        Infinite without any draw, else finite. The smallest is always that of an active contender.
    """
    n_draws = (~contributions.isnan()).sum(1)
    most = int(n_draws.max())
    losses = put_behind(contributions[:, :most].mean(1), active, temperature)
    for n in sorted(set(n_draws.tolist()) - {most}, reverse=True):
        if not n:
            losses = losses.where(n_draws != 0, torch.inf)
            break
        common = contributions[:, :n].mean(1)
        dropper = common.where(n_draws > n, torch.inf).argmin()
        estimate = losses[dropper] + common - common[dropper]
        losses = put_behind(losses.where(n_draws != n, estimate), active, temperature)
    return losses


def put_behind(losses: Tensor, active: Tensor, temperature: float) -> Tensor:
    """Raise the losses of inactive entries just above the smallest loss of the active ones."""
    winner = losses[active].min().item()
    floor = winner + _MARGIN * max(1.0, temperature, abs(winner))
    return losses.where(active, losses.clamp(min=floor))


def read_log_prior(priors: Any, n_classes: int) -> Tensor:
    """Return normalised log priors [K] in float64; None gives uniform priors.

    Raises
    ------
    InputValueError
        If ``priors`` are not ``n_classes`` positive finite numbers.
    """
    values = np.ones(n_classes) if priors is None else as_numbers("priors", priors)
    if values.shape != (n_classes,) or (values <= 0).any():
        raise InputValueError(
            f"priors={short_repr(priors)} must be {n_classes} positive numbers, in the order of "
            "the sorted labels."
        )
    return torch.as_tensor(np.log(values)).log_softmax(0)  # the sum of the values may overflow
