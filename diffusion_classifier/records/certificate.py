r"""How sure a race was of its answer, image by image.

The *margin* is the runner-up's loss less the winner's: with ``d_j`` the difference of their
contributions on the draws both took, it estimates ``E d``. Draws within a round depend on each
other and rounds do not, so the standard error of the mean of d is that of round means ``d_r``,
weighted by their sizes ``n_r``:

    se^2 = R / (R - 1) sum_r (n_r / n)^2 (d_r - mean d)^2,    NaN from a single round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..scoring.class_losses import Scoring, contender_losses, count_draws

if TYPE_CHECKING:
    from .table import ErrorTable


FIELDS = ["resolved", "alpha", "winner", "runner_up", "margin", "standard_error", "n_draws"]


def certify(table: ErrorTable) -> np.recarray:
    """One record per image: how its race ended, and by how much.

    Parameters
    ----------
    table : ErrorTable

    Returns
    -------
    recarray of shape (N,)
        With the fields that ``ErrorTable.certificate`` names.
    """
    scoring, round_of = table.scoring, torch.as_tensor(table.round_of)
    n_images = len(table)
    pairs = np.empty((n_images, 2), int)
    margins, n_draws = np.empty((n_images, 2)), np.empty(n_images, int)
    for i, (errors, timesteps, density, active) in enumerate(table.rows()):
        n = n_draws[i] = count_draws(errors)
        contributions = scoring.contributions(errors[:, :n], timesteps[:n], density[:n])
        contenders = scoring.contenders(active)
        losses = scoring.class_losses(contributions, contenders)
        pairs[i] = first, second = losses.argsort(stable=True)[:2].tolist()
        rival, leader = (
            contributions[_best_contender(contributions, contenders, scoring, k)]
            for k in (second, first)
        )
        margins[i] = losses[second] - losses[first], standard_error(rival - leader, round_of[:n])
    resolved = scoring.decided(torch.as_tensor(table.active)).numpy()
    columns = [resolved, np.full(n_images, table.alpha), *table.classes[pairs.T], *margins.T]
    columns.append(n_draws)
    kinds = [(name, column.dtype) for name, column in zip(FIELDS, columns, strict=True)]
    return np.rec.fromarrays(columns, dtype=kinds)


def _best_contender(contributions: Tensor, active: Tensor, scoring: Scoring, label: int) -> int:
    """The contender that stands for a class: itself, or its best prompt."""
    if scoring.races_classes:
        return label
    losses = contender_losses(contributions, active)
    return int(losses.where(scoring.class_of == label, torch.inf).argmin())


def standard_error(differences: Tensor, round_of: Tensor) -> float:
    """Standard error of the mean of differences [n], NaN where there are none, over rounds [n].

    Examples
    --------
    >>> standard_error(torch.tensor([1.0, 3.0, 3.0, 5.0]), torch.tensor([0, 0, 1, 1]))
    1.0
    """
    taken = ~differences.isnan()
    differences, round_of = differences[taken].double(), round_of[taken]
    sizes = torch.bincount(round_of)
    n_rounds, n = len(sizes), len(differences)
    if n_rounds < 2:
        return np.nan
    excess = torch.bincount(round_of, weights=differences - differences.mean()) / n
    return float(((excess**2).sum() * n_rounds / (n_rounds - 1)).sqrt())
