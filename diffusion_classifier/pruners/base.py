r"""Who stays in the race: after a round, which prompts still deserve evaluations.

A pruner sees the *contributions* ``w(t_j) err_j / q_j - log prior`` of every prompt still
active, on the draws all of them share, and says which stay. It is a pure function: it holds no
state between calls, and never sees another image's errors, so an image's answer does not
depend on its neighbours.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..learner import Learner
from ..utils.display import DocumentedMixin
from ..utils.validation import check_positive_integer


class Pruner(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Decides which prompts (or classes) remain active, and when to stop.

    Attributes
    ----------
    max_draws : int
        Draws after which a race ends whoever is left: the one budget of a prediction.
    """

    max_draws: int

    @abstractmethod
    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        """Which of the active prompts stay active.

        Parameters
        ----------
        contributions : Tensor of shape (B, P, J), dtype float64
            B images that have taken the same J draws; NaN where a prompt was not evaluated.
        active : Tensor of shape (B, P), dtype bool
            Active prompts have all J draws.
        round_of : Tensor of shape (J,), dtype int64
            The round that each draw belongs to; rounds are independent.
        class_of : Tensor of shape (P,), dtype int64, optional
            The class of each prompt. By default each is a class of its own.

        Returns
        -------
        Tensor of shape (B, P), dtype bool
            A subset of ``active``, with at least one prompt per image.
        """

    def next_look(self, n_draws: int) -> int:
        """Draws at which ``select`` may next drop a prompt, if it has looked at ``n_draws``.

        Rounds up to it need no decision between them, so they can share a batch.
        """
        return n_draws + 1

    def max_classes(self, n_draws: int, n_classes: int) -> int:
        """Most of ``n_classes`` classes that are left after a look at ``n_draws`` draws."""
        return n_classes

    def max_evaluations(
        self,
        n_classes: int,
        *,
        round_sizes: Iterable[int] | None = None,
        n_prompts: Sequence[int] | None = None,
    ) -> int:
        """Most evaluations of one image.

        Parameters
        ----------
        n_classes : int
        round_sizes : iterable of int, optional
            Draws of each round: classes are dropped at the end of a round only. By default they
            can be dropped after every draw.
        n_prompts : sequence of int of length n_classes, optional
            Prompts of each class, by default one. Classes with the most prompts are taken to stay.

        Returns
        -------
        int
        """
        budget = check_positive_integer("max_draws", self.max_draws)
        most = np.sort([1] * n_classes if n_prompts is None else list(n_prompts))[::-1].cumsum()
        total = n_draws = 0
        for size in itertools.repeat(1, budget) if round_sizes is None else round_sizes:
            if n_classes == 1:
                break
            total += size * int(most[n_classes - 1])
            n_draws += size
            n_classes = self.max_classes(n_draws, n_classes)
        return total


class NoPruning(Pruner):
    """Evaluates every prompt on every draw.

    Parameters
    ----------
    max_draws : int, default=200
        Draws per prompt.

    Examples
    --------
    >>> from diffusion_classifier.pruners import NoPruning
    >>> NoPruning(max_draws=100).max_evaluations(n_classes=10)
    1000
    """

    def __init__(self, max_draws: int = 200) -> None:
        self.max_draws = max_draws

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        return active

    def next_look(self, n_draws: int) -> int:
        return self.max_draws


def behind_leader(values: Tensor, active: Tensor) -> Tensor:
    """Values [B, P, J] less those of the active row of least mean; NaN where not evaluated.

    Examples
    --------
    >>> import torch
    >>> values = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]])
    >>> behind_leader(values, torch.tensor([[True, True]])).tolist()
    [[[1.0, 1.0], [0.0, 0.0]]]
    """
    leader = values.mean(2).masked_fill(~active, torch.inf).argmin(1)
    return values - values[torch.arange(len(leader)), leader][:, None]
