"""One image's race, as the displays of races and of timesteps read it from a table."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..records.certificate import best_contenders
from ..records.table import ErrorTable
from ..scoring.class_losses import Scoring, count_draws


class Raced(NamedTuple):
    """What an image's race left, for those classes that raced.

    Attributes
    ----------
    classes : Tensor of shape (k,)
        Their indices among the table's classes: all, or the image's candidates.
    contributions : Tensor of shape (k, n)
        Contributions of each class, or of its best prompt, in units of losses; NaN once dropped.
    losses : Tensor of shape (k,)
        Class losses.
    stays : Tensor of shape (k,), dtype bool
        Whether a class was in the race to its end.
    scoring : Scoring
        Of these classes alone.
    """

    classes: Tensor
    contributions: Tensor
    losses: Tensor
    stays: Tensor
    scoring: Scoring

    @property
    def n_draws(self) -> int:
        """The number of draws n."""
        return self.contributions.shape[1]

    @property
    def temperature(self) -> float:
        """The temperature T, which turns losses into nats."""
        return self.scoring.temperature(self.n_draws)


def raced(table: ErrorTable, image: int) -> Raced | None:
    """Return an image's race; None if it had none: skipped, or with a single candidate."""
    ((errors, timesteps, density, active),) = table[image].rows()
    scoring, classes = table.scoring, torch.arange(len(table.classes))
    if table.candidates is not None:
        own = table.candidates.of(image)
        prompts = own.prompts(scoring)
        errors, active = errors[prompts], active[prompts]
        classes, scoring = own.classes, own.scoring(scoring)
    n = count_draws(errors)
    if not n:
        return None
    contributions = scoring.contributions(errors[:, :n], timesteps[:n], density[:n])
    contenders = scoring.contenders(active)
    stays = torch.zeros(len(classes), dtype=torch.bool)
    stays[scoring.class_of[active]] = True
    return Raced(
        classes=classes,
        contributions=contributions[best_contenders(contributions, contenders, scoring)],
        losses=scoring.class_losses(contributions, contenders),
        stays=stays,
        scoring=scoring,
    )
