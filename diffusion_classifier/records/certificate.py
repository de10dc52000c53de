r"""How sure a race was of its answer, image by image.

The *margin* is the runner-up's loss less the winner's: with ``d_j`` the difference of their
contributions on the draws both took, it estimates ``E d``. Draws of one round depend on each
other and rounds do not, so the standard error of the mean of d is that of round means ``d_r``,
weighted by their sizes ``n_r``:

    se^2 = R / (R - 1) sum_r (n_r / n)^2 (d_r - mean d)^2,    NaN from a single round.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..scoring.class_losses import Scoring, contender_losses, count_draws
from .setup import RecordSetup

FIELDS = ["resolved", "alpha", "winner", "runner_up", "margin", "standard_error", "n_draws"]

Row = tuple[Tensor, Tensor, Tensor, Tensor]  # errors [P, J], timesteps, density [J], active [P]


def certify(rows: Iterable[Row], round_of: NDArray[np.int64], setup: RecordSetup) -> np.recarray:
    """One record per image: how its race ended, and by how much.

    Parameters
    ----------
    rows : iterable of length N
        Errors [P, J], timesteps [J], density [J] and who was left [P], image by image.
    round_of : ndarray of shape (J,)
        The round of each draw.
    setup : RecordSetup

    Returns
    -------
    recarray of shape (N,)
        With the fields that ``ErrorTable.certificate`` names.
    """
    scoring, rounds = setup.scoring, torch.as_tensor(round_of)
    pairs, margins, n_draws, resolved = [], [], [], []
    for errors, timesteps, density, active in rows:
        n = count_draws(errors)
        contributions = scoring.contributions(errors[:, :n], timesteps[:n], density[:n])
        contenders = scoring.contenders(active)
        losses = scoring.class_losses(contributions, contenders)
        first, second = losses.argsort(stable=True)[:2].tolist()
        rival, leader = (
            contributions[_best_contender(contributions, contenders, scoring, k)]
            for k in (second, first)
        )
        pairs.append((first, second))
        gap = float(losses[second] - losses[first])
        margins.append((gap, standard_error(rival - leader, rounds[:n])))
        n_draws.append(n)
        resolved.append(bool(scoring.decided(active)))
    winner, runner_up = setup.classes[np.array(pairs, int).reshape(-1, 2).T]
    margin, error = np.array(margins, float).reshape(-1, 2).T
    columns = [np.array(resolved, bool), np.full(len(pairs), setup.alpha), winner, runner_up]
    columns += [margin, error, np.array(n_draws, int)]
    kinds = [(name, column.dtype) for name, column in zip(FIELDS, columns, strict=True)]
    return np.rec.fromarrays(columns, dtype=kinds)


def _best_contender(contributions: Tensor, active: Tensor, scoring: Scoring, label: int) -> int:
    """The contender that stands for a class: the class itself, or its best prompt."""
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
