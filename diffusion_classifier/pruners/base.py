r"""The interface of pruners, and what the built-in ones share.

After every round, a pruner decides which prompts stay *active*, that is, receive more evaluations.
It sees the *contributions* ``w(t_j) err_j / q_j - log prior`` of each prompt on the draws so far.
A pruner keeps no state between calls and sees only the errors of the image at hand, so the result
of an image does not depend on other images.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..learner import Learner
from ..utils.constraints import MANY, Integers, Table, check_parameters
from ..utils.display import DocumentedMixin
from .running import RunningRounds


class Pruner(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Base class of pruners, which decide which prompts (or classes) remain active.

    Attributes
    ----------
    max_draws : int
        Draws after which a race ends even if several classes are still active, at most 100,000.
    incremental : bool
        Whether :meth:`judge` does what :meth:`select` does without seeing all draws again.
    """

    max_draws: int
    incremental: ClassVar[bool] = False
    _constraints: ClassVar[Table] = {"max_draws": Integers(1, MANY)}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__:
            if "judge" in vars(base):
                return
            if "select" in vars(base) or "_survivors" in vars(base):
                cls.incremental = False  # a judge from further up would not do what this selects
                return

    @abstractmethod
    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        """Select the active prompts that stay active.

        Parameters
        ----------
        contributions : Tensor of shape (B, P, J), dtype float64
            Contributions of B images that have all taken the same J draws; NaN where a prompt
            was not evaluated.
        active : Tensor of shape (B, P), dtype bool
            Active prompts, which were evaluated on all J draws.
        round_of : Tensor of shape (J,), dtype int64
            Round of each draw. Rounds are independent.
        class_of : Tensor of shape (P,), dtype int64, optional
            Class of each prompt. By default each prompt is its own class.

        Returns
        -------
        Tensor of shape (B, P), dtype bool
            A subset of ``active``, with at least one prompt per image.

        Raises
        ------
        InputValueError
            If a parameter of the pruner has a value that it does not allow.
        """

    def judge(self, rounds: RunningRounds, active: Tensor) -> Tensor:
        """Select the active prompts as :meth:`select` does, from sums over rounds.

        Races call it only if the pruner is ``incremental``.

        Parameters
        ----------
        rounds : RunningRounds
            Sums over the rounds of B images, as NumPy arrays.
        active : Tensor of shape (B, P), dtype bool
            Active prompts.

        Returns
        -------
        Tensor of shape (B, P), dtype bool
            A subset of ``active``, with at least one prompt per image.
        """
        raise NotImplementedError(f"{type(self).__name__} is not incremental.")

    def _check(self) -> None:
        """Raise an InputValueError if a parameter has a value that it does not allow."""
        check_parameters(self)

    def next_look(self, n_draws: int) -> int:
        """Return the number of draws at which ``select`` may next drop a prompt.

        ``n_draws`` is the number of draws at the last look. Rounds up to the next look can be
        evaluated in one batch.
        """
        return n_draws + 1

    def max_classes(self, n_draws: int, n_classes: int) -> int:
        """Return how many of ``n_classes`` classes can still be active after ``n_draws`` draws."""
        return n_classes

    def max_evaluations(
        self,
        n_classes: int,
        *,
        round_sizes: Iterable[int] | None = None,
        n_prompts: Sequence[int] | None = None,
    ) -> int:
        """Compute the largest possible number of evaluations of one image.

        Parameters
        ----------
        n_classes : int
            Number of classes.
        round_sizes : iterable of int, optional
            Draws of each round; classes are dropped only at the end of a round. By default, every
            draw is a round.
        n_prompts : sequence of int of length n_classes, optional
            Number of prompts of each class, by default one. The classes with the most prompts are
            assumed to stay.

        Returns
        -------
        int

        Raises
        ------
        InputValueError
            If a parameter of the pruner has a value that it does not allow.
        """
        self._check()
        most = np.sort([1] * n_classes if n_prompts is None else list(n_prompts))[::-1].cumsum()
        total = n_draws = 0
        for size in (
            itertools.repeat(1, int(self.max_draws)) if round_sizes is None else round_sizes
        ):
            if n_classes == 1:
                break
            total += size * int(most[n_classes - 1])
            n_draws += size
            n_classes = self.max_classes(n_draws, n_classes)
        return total


class Look(NamedTuple):
    """What a built-in pruner sees after a round: the arguments of :meth:`Pruner.select`."""

    contributions: Tensor
    active: Tensor
    round_of: Tensor
    class_of: Tensor


class BuiltInPruner(Pruner):
    """Base class of the built-in pruners, which check their parameters at every look."""

    def select(
        self,
        contributions: Tensor,
        active: Tensor,
        round_of: Tensor,
        class_of: Tensor | None = None,
    ) -> Tensor:
        self._check()
        if class_of is None:
            class_of = torch.arange(active.shape[1])
        return self._survivors(Look(contributions, active, round_of, class_of))

    @abstractmethod
    def _survivors(self, look: Look) -> Tensor:
        """Return the prompts that stay active, as :meth:`select` does."""


class LeaderPruner(BuiltInPruner):
    """Base class of pruners that compare each prompt with the current leader, draw by draw.

    Attributes
    ----------
    min_draws : int
        Draws before the first comparison.
    """

    min_draws: int
    _constraints: ClassVar[Table] = {**Pruner._constraints, "min_draws": Integers(1, MANY)}

    def next_look(self, n_draws: int) -> int:
        return max(n_draws + 1, self.min_draws)

    def _survivors(self, look: Look) -> Tensor:
        if look.contributions.shape[2] < self.min_draws:
            return look.active
        return look.active & ~self._too_far(behind_leader(look.contributions, look.active))

    @abstractmethod
    def _too_far(self, differences: Tensor) -> Tensor:
        """Return which prompts [B, P] to drop, from their differences to the leader [B, P, J]."""


class NoPruning(BuiltInPruner):
    """No pruning: evaluate every prompt on every draw.

    Parameters
    ----------
    max_draws : int, default=200
        Draws per prompt, at most 100,000.

    Raises
    ------
    InputValueError
        In ``select``, if ``max_draws`` is not a positive integer or is too large.

    Examples
    --------
    >>> from diffusion_classifier.pruners import NoPruning
    >>> NoPruning(max_draws=100).max_evaluations(n_classes=10)
    1000
    """

    def __init__(self, max_draws: int = 200) -> None:
        self.max_draws = max_draws

    def next_look(self, n_draws: int) -> int:
        return self.max_draws

    def _survivors(self, look: Look) -> Tensor:
        return look.active


def behind_leader(values: Tensor, active: Tensor) -> Tensor:
    """Subtract the active row of least mean from values [B, P, J]; NaN where not evaluated.

    Examples
    --------
    >>> import torch
    >>> values = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]])
    >>> behind_leader(values, torch.tensor([[True, True]])).tolist()
    [[[1.0, 1.0], [0.0, 0.0]]]
    """
    leader = values.mean(2).masked_fill(~active, torch.inf).argmin(1)
    return values - values[torch.arange(len(leader)), leader][:, None]
