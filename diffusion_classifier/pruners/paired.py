"""A pruner that repeats a paired t-test after every round."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from scipy.special import stdtrit
from torch import Tensor

from ..utils.constraints import Reals, Table
from .base import LeaderPruner


class PairedTestPruner(LeaderPruner):
    """Drop a prompt when a paired t-test finds it worse than the leader.

    The test treats every draw as an observation and is repeated after every round at the same
    level. It is cheap, but has no bound on the error of a whole race, because each repetition is
    another chance to err. :class:`~diffusion_classifier.pruners.RacingPruner` has such a bound.

    Parameters
    ----------
    min_draws : int, default=20
        Draws before the first test; 1 has the same effect as 2.
    max_draws : int, default=200
        Draws after which a race ends even if several classes are still active, at
        most 100,000.
    p_value : float in (0, 1/2), default=2e-3
        One-sided level of each test.

    Raises
    ------
    InputValueError
        In ``select``, if a parameter has a value that it does not allow.

    References
    ----------
    K. Clark and P. Jaini, "Text-to-Image Diffusion Models are Zero-Shot Classifiers", NeurIPS
    2023, arXiv 2303.15233, section 3.1.

    Examples
    --------
    >>> import torch
    >>> contributions = torch.tensor([[[1.0, 1.1, 0.9], [2.0, 2.0, 2.1], [1.0, 1.0, 1.1]]])
    >>> pruner = PairedTestPruner(min_draws=3, p_value=0.05)
    >>> pruner.select(contributions, torch.ones(1, 3, dtype=torch.bool), torch.arange(3))
    tensor([[ True, False,  True]])
    """

    _constraints: ClassVar[Table] = {
        **LeaderPruner._constraints,
        "p_value": Reals(0, 0.5, "neither"),
    }

    def __init__(self, min_draws: int = 20, *, max_draws: int = 200, p_value: float = 2e-3) -> None:
        self.min_draws = min_draws
        self.max_draws = max_draws
        self.p_value = p_value

    def _too_far(self, differences: Tensor) -> Tensor:
        n_draws = differences.shape[2]
        if n_draws == 1:  # no variance to test with
            return torch.zeros_like(differences[..., 0], dtype=torch.bool)
        error = differences.std(2) / math.sqrt(n_draws)
        critical = float(stdtrit(n_draws - 1, 1 - self.p_value))
        return differences.mean(2) > critical * error
