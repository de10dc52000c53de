r"""From recorded errors to one loss per class.

The contribution of draw j to prompt p's loss, and the loss itself, are

    c_pj = w(t_j) / q_j * err_pj - log prior(class of p),    L_p = mean_j c_pj,

so that ``-L_p`` estimates ``log p(x | prompt) + log prior`` up to a constant.

A dropped prompt has fewer draws than the winner, and means over different draws must not be
compared. Its loss is therefore that of the prompt that led when it was dropped, plus their mean
difference on the draws both took, and never below the winner's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PROMPT_REDUCTIONS = ("best", "mean", "mixture")
_MARGIN = 1e-9  # relative distance that a dropped prompt is kept behind the winner


@dataclass(frozen=True)
class Scoring:
    """How errors become losses: weights, priors and the classes that prompts belong to.

    Attributes
    ----------
    weights : Tensor of shape (T,), dtype float64
        w(t).
    log_prior : Tensor of shape (K,), dtype float64
    class_of : Tensor of shape (P,), dtype int64
        The class of each prompt.
    reduction : {"best", "mean", "mixture"}
        A class's loss from its prompts': the smallest, the mean, or that of a mixture with
        equal weights, ``-log mean_p exp(-L_p)``.
    """

    weights: Tensor
    log_prior: Tensor
    class_of: Tensor
    reduction: str = "best"

    @property
    def n_classes(self) -> int:
        return len(self.log_prior)

    @property
    def races_classes(self) -> bool:
        """Whether classes race as a whole; else prompts do."""
        return self.reduction == "mean"

    def contributions(self, errors: Tensor, timesteps: Tensor, density: Tensor) -> Tensor:
        """Contributions of contenders: prompts, or classes where they race as a whole.

        Parameters
        ----------
        errors : Tensor of shape (..., P, J)
            NaN where not evaluated.
        timesteps, density : Tensor of shape (J,)

        Returns
        -------
        Tensor of shape (..., P or K, J), dtype float64
        """
        weighted = errors.double() * (self.weights[timesteps] / density)
        weighted = weighted - self.log_prior[self.class_of][:, None]
        if not self.races_classes:
            return weighted
        shape = (*weighted.shape[:-2], self.n_classes, weighted.shape[-1])
        sums = weighted.new_zeros(shape).index_add(-2, self.class_of, weighted)
        return sums / self.class_of.bincount()[:, None]

    def contenders(self, active: Tensor) -> Tensor:
        """Active prompts [..., P] as active contenders [..., P or K]."""
        if not self.races_classes:
            return active
        first_prompt = torch.searchsorted(self.class_of, torch.arange(self.n_classes))
        return active[..., first_prompt]

    def prompts(self, contenders: Tensor) -> Tensor:
        """Active contenders [..., P or K] as active prompts [..., P]."""
        return contenders[..., self.class_of] if self.races_classes else contenders

    def decided(self, active: Tensor) -> Tensor:
        """Whether all active prompts [..., P] belong to one class."""
        lowest = torch.where(active, self.class_of, self.n_classes).amin(-1)
        highest = torch.where(active, self.class_of, -1).amax(-1)
        return lowest == highest

    def class_losses_of(self, errors: Tensor, timesteps: Tensor, density: Tensor) -> Tensor:
        """Losses [K] of one image from its errors [P, J], on the first J of these draws."""
        n = errors.shape[1]
        return self.class_losses(self.contributions(errors, timesteps[:n], density[:n]))

    def class_losses(self, contributions: Tensor) -> Tensor:
        """Losses of the classes [K] from one image's contributions [P or K, J]."""
        losses = contender_losses(contributions)
        if self.races_classes:
            return losses
        best = losses.new_zeros(self.n_classes).scatter_reduce(
            0, self.class_of, losses, "amin", include_self=False
        )
        if self.reduction == "best":
            return best
        shares = torch.zeros_like(best).index_add(
            0, self.class_of, torch.exp(best[self.class_of] - losses)
        )
        return best - torch.log(shares / self.class_of.bincount())


def contender_losses(contributions: Tensor) -> Tensor:
    """Comparable losses of contenders that took different numbers of draws.

    Parameters
    ----------
    contributions : Tensor of shape (P, J), dtype float64
        Each row evaluated on its first draws and NaN after them.

    Returns
    -------
    Tensor of shape (P,), dtype float64
        Finite; a contender with fewer draws than the most is never first.
    """
    n_draws = (~contributions.isnan()).sum(1)
    most = int(n_draws.max())
    losses = contributions[:, :most].mean(1)
    winner = losses[n_draws == most].min()
    floor = winner + _MARGIN * max(1.0, abs(winner.item()))
    for n in sorted(set(n_draws.tolist()) - {most}, reverse=True):
        common = contributions[:, :n].mean(1)
        dropper = common.where(n_draws > n, torch.inf).argmin()
        estimate = losses[dropper] + common - common[dropper]
        losses = losses.where(n_draws != n, estimate.clamp(min=floor))
    return losses
