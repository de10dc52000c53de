r"""Certificates: how confident each image's race was of its answer.

The *margin* is the runner-up's loss minus the winner's. It estimates ``E d``, where ``d_j`` is the
difference of their contributions on draw j, over the draws that both took. Draws of one round
depend on each other, but rounds are independent. The standard error of the mean of d is therefore
computed from the round means ``d_r``, weighted by the round sizes ``n_r``:

    se^2 = R / (R - 1) sum_r (n_r / n)^2 (d_r - mean d)^2,    NaN for a single round.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..scoring.candidates import Candidates
from ..scoring.class_losses import Scoring, contender_losses, count_draws
from .setup import RecordSetup

FIELDS = ["resolved", "alpha", "winner", "runner_up", "margin", "standard_error", "n_draws"]

Row = tuple[Tensor, Tensor, Tensor, Tensor]  # errors [P, J], timesteps, density [J], active [P]


def certify(
    rows: Iterable[Row],
    round_of: NDArray[np.int64],
    setup: RecordSetup,
    candidates: Candidates | None = None,
) -> np.recarray:
    """Compute one record per image: how its race ended, and by what margin.

    Parameters
    ----------
    rows : iterable of length N
        Errors [P, J], timesteps [J], density [J] and remaining prompts [P] of each image.
    round_of : ndarray of shape (J,)
        The round of each draw.
    setup : RecordSetup
    candidates : Candidates, optional
        By default, all classes of every image. A single candidate wins without a runner-up.

    Returns
    -------
    recarray of shape (N,)
        With the fields described in ``ErrorTable.certificate``.
    """
    rounds, labels = torch.as_tensor(round_of), torch.arange(setup.scoring.n_classes)
    pairs, margins, n_draws, resolved = [], [], [], []
    for image, (errors, timesteps, density, active) in enumerate(rows):
        scoring = setup.scoring
        if candidates is not None:
            own = candidates.of(image)
            labels, raced = own.classes, own.prompts(scoring)
            errors, active, scoring = errors[raced], active[raced], own.scoring(scoring)
        n = count_draws(errors)
        n_draws.append(n)
        is_alone = bool(active.any()) and len(labels) == 1
        resolved.append(is_alone or (bool(n) and bool(scoring.decided(active))))
        if is_alone or not n:  # a skipped image has no winner
            pairs.append((int(labels[0]) if is_alone else -1, -1))
            margins.append((np.nan, np.nan))
            continue
        contributions = scoring.contributions(errors[:, :n], timesteps[:n], density[:n])
        contenders = scoring.contenders(active)
        losses = scoring.class_losses(contributions, contenders)
        first, second = losses.argsort(stable=True)[:2].tolist()
        best = best_contenders(contributions, contenders, scoring)
        rival, leader = contributions[best[second]], contributions[best[first]]
        pairs.append((int(labels[first]), int(labels[second])))
        gap = float(losses[second] - losses[first])
        margins.append((gap, standard_error(rival - leader, rounds[:n])))
    classes = setup.classes
    if any(-1 in pair for pair in pairs):
        classes = np.append(classes.astype(object), [None])
    winner, runner_up = classes[np.array(pairs, int).reshape(-1, 2).T]
    margin, error = np.array(margins, float).reshape(-1, 2).T
    columns = [np.array(resolved, bool), np.full(len(pairs), setup.alpha), winner, runner_up]
    columns += [margin, error, np.array(n_draws, int)]
    kinds = [(name, column.dtype) for name, column in zip(FIELDS, columns, strict=True)]
    return np.rec.fromarrays(columns, dtype=kinds)


def best_contenders(contributions: Tensor, active: Tensor, scoring: Scoring) -> Tensor:
    """Return each class's index among the contenders [K]: the class itself, or its best prompt.

    Parameters
    ----------
    contributions : Tensor of shape (P or K, J), dtype float64
        Contributions of one image's contenders; NaN after the last draw of each.
    active : Tensor of shape (P or K,), dtype bool
        Contenders still active at the end of the race.
    scoring : Scoring

    Returns
    -------
    Tensor of shape (K,), dtype int64
    """
    classes = torch.arange(scoring.n_classes)
    if scoring.races_classes:
        return classes
    order = contender_losses(contributions, active).argsort(stable=True)
    by_class = order[scoring.class_of[order].argsort(stable=True)]  # best first, within a class
    return by_class[torch.searchsorted(scoring.class_of, classes)]


def standard_error(differences: Tensor, round_of: Tensor) -> float:
    """Standard error of the mean of differences [n] with rounds [n]; NaN entries are skipped.

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
