"""A paired t-test after every round."""

from __future__ import annotations

import math

from scipy.special import stdtrit
from torch import Tensor

from ..errors import InputValueError
from ..utils.validation import check_positive_integer
from .base import Pruner, behind_leader


class PairedTestPruner(Pruner):
    """Drops a prompt when a paired t-test says that it is behind the leader.

    Every draw is an observation, and the test is repeated after every round at the same level:
    cheap, and without a promise, as each further look is another chance to err.
    :class:`~diffusion_classifier.pruners.RacingPruner` makes one.

    Parameters
    ----------
    min_draws : int, default=20
        Draws before the first test, at least 2.
    max_draws : int, default=200
        Draws after which a race ends whoever is left.
    p_value : float in (0, 1/2), default=2e-3
        One-sided level of each test.

    Raises
    ------
    ValueError
        In ``select``: a parameter is out of range.

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

    def __init__(self, min_draws: int = 20, *, max_draws: int = 200, p_value: float = 2e-3) -> None:
        self.min_draws = min_draws
        self.max_draws = max_draws
        self.p_value = p_value

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        if not 0 < self.p_value < 0.5:
            raise InputValueError(f"p_value={self.p_value!r} must be between 0 and 1/2.")
        n_draws = contributions.shape[2]
        if n_draws < max(2, check_positive_integer("min_draws", self.min_draws)):
            return active
        differences = behind_leader(contributions, active)
        error = differences.std(2) / math.sqrt(n_draws)
        critical = float(stdtrit(n_draws - 1, 1 - self.p_value))
        return active & ~(differences.mean(2) > critical * error)

    def next_look(self, n_draws: int) -> int:
        return max(n_draws + 1, self.min_draws)
