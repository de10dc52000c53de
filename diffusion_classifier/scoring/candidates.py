r"""Candidates: the classes that each image may have, and what a proposer says of all classes.

Let C be the candidates of an image x, which race, and q the probabilities of a *proposer*, such as
a cheap classifier. With the class losses L, the temperature T and the *prior strength* s,

    log p(c | x) = log q(C) + log_softmax_{C}(-L_c / T + s log q(c)),      c in C,
    log p(c | x) = log q(c),                                               c not in C,

where q(C) is the sum of q over C, and the priors are part of L. If q has the same priors p(c), as
that of a race over groups has, s log(q(c) / p(c)) takes the place of s log q(c): the priors count
once. So the race decides how the
candidates share their mass, and other classes keep that of the proposer. Without a proposer q(C) is
1 and classes outside have probability 0. The most probable class is always a candidate: the best
candidate has at least q(C) / |C|, and a proposer names its most probable classes as candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputValueError
from .class_losses import Scoring
from .interval import probability_interval

_BEHIND = 1e-9  # distance in log probability by which a class outside stays behind the best inside


def same_candidates(some: Candidates | None, all_: Candidates | None) -> bool:
    """Whether the first of N images have the candidates ``some``; None is all classes."""
    if some is None or all_ is None:
        return some is all_
    first = all_[: len(some)]
    if some.strength != first.strength or not np.array_equal(some.mask, first.mask):
        return False
    if some.log_proba is None or first.log_proba is None:
        return some.log_proba is first.log_proba
    return np.array_equal(some.log_proba, first.log_proba)


class OneRace(NamedTuple):
    """What one image's race is about.

    Attributes
    ----------
    mask : Tensor of shape (K,), dtype bool
        Candidates, at least one.
    log_proba : Tensor of shape (K,), dtype float64, or None
        Log probabilities of the proposer.
    strength : float
        Prior strength.
    has_prior : bool
        Whether ``log_proba`` contains the priors of the classes.
    """

    mask: Tensor
    log_proba: Tensor | None = None
    strength: float = 0.0
    has_prior: bool = False

    @property
    def classes(self) -> Tensor:
        """Indices of the candidates."""
        return self.mask.nonzero()[:, 0]

    def log_prior(self, scoring: Scoring) -> Tensor:
        """Return the log prior [K] of the race, not normalised."""
        if self.log_proba is None or not self.strength:
            return scoring.log_prior
        once = scoring.log_prior if self.has_prior else 0.0
        return scoring.log_prior + self.strength * (self.log_proba - once)

    def prompts(self, scoring: Scoring) -> Tensor:
        """Return which prompts [P] belong to candidates."""
        return self.mask[scoring.class_of]

    def scoring(self, scoring: Scoring) -> Scoring:
        """Return a scoring of the candidates alone, numbered from 0, with the race's priors."""
        number = self.mask.cumsum(0) - 1
        return replace(
            scoring,
            log_prior=self.log_prior(scoring)[self.mask],
            class_of=number[scoring.class_of[self.prompts(scoring)]],
        )

    def class_losses(
        self, scoring: Scoring, errors: Tensor, timesteps: Tensor, density: Tensor, active: Tensor
    ) -> Tensor:
        """Compute class losses [K]; infinite for classes that are no candidates.

        The arguments are those of :meth:`Scoring.class_losses_of`. The loss of a single candidate,
        which needs no race, is 0.
        """
        losses = torch.full((scoring.n_classes,), torch.inf, dtype=torch.float64)
        prompts = self.prompts(scoring)
        losses[self.mask] = (
            torch.zeros(1, dtype=torch.float64)
            if len(self.classes) == 1
            else self.scoring(scoring).class_losses_of(
                errors[prompts], timesteps, density, active[prompts]
            )
        )
        return losses

    def log_posterior(
        self, scoring: Scoring, errors: Tensor, timesteps: Tensor, density: Tensor, active: Tensor
    ) -> Tensor:
        """Compute the log posterior [K]; the arguments are those of ``class_losses``."""
        prompts = self.prompts(scoring)
        among = torch.zeros(1, dtype=torch.float64)
        if len(self.classes) > 1:
            among = self.scoring(scoring).log_posterior_of(
                errors[prompts], timesteps, density, active[prompts]
            )
        if self.log_proba is None:
            posterior = torch.full((scoring.n_classes,), -torch.inf, dtype=torch.float64)
            posterior[self.mask] = among
            return posterior
        among = among + self.log_proba[self.mask].logsumexp(0)
        posterior = self.log_proba.clamp(max=float(among.max()) - _BEHIND)
        posterior[self.mask] = among
        return posterior.log_softmax(0)

    def probability_interval(
        self,
        scoring: Scoring,
        errors: Tensor,
        timesteps: Tensor,
        density: Tensor,
        active: Tensor,
        round_of: Tensor,
    ) -> Tensor:
        """Compute 95 % intervals [2, K]; of no width for classes that do not race."""
        ends = self.log_posterior(scoring, errors, timesteps, density, active).exp().repeat(2, 1)
        if len(self.classes) > 1:
            prompts, mass = self.prompts(scoring), ends[0, self.mask].sum()
            ends[:, self.mask] = mass * probability_interval(
                self.scoring(scoring),
                errors[prompts],
                timesteps,
                density,
                active[prompts],
                round_of,
            )
        return ends


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of N images.

    Indexing with a slice, an array of integers or a boolean mask selects images.

    Attributes
    ----------
    mask : ndarray of shape (N, K), dtype bool
        Which classes race, at least one per image.
    log_proba : ndarray of shape (N, K), dtype float64, or None
        Log probabilities of the proposer, finite and normalised; None without a proposer.
    strength : float, default=0.0
        How much of ``log_proba`` is added to the log priors of the race.
    has_prior : bool, default=False
        Whether ``log_proba`` contains the priors of the classes, which then count once.

    Raises
    ------
    InputValueError
        If shapes or dtypes do not fit, an image has no candidate, or ``log_proba`` are not
        logarithms of probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> candidates = Candidates(np.array([[True, False, True], [False, True, False]]))
    >>> len(candidates), candidates[1:].mask.tolist()
    (2, [[False, True, False]])
    """

    mask: NDArray[np.bool_]
    log_proba: NDArray[np.float64] | None = None
    strength: float = 0.0
    has_prior: bool = False

    def __post_init__(self) -> None:
        mask, log_proba = self.mask, self.log_proba
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.ndim != 2:
            raise InputValueError("candidates must be a boolean array of shape (N, K).")
        if not mask.any(1).all():
            raise InputValueError(
                f"image {int(mask.any(1).argmin())} has no candidate; give it at least one class."
            )
        if not (np.isfinite(self.strength) and self.strength >= 0):
            raise InputValueError(f"strength={self.strength} must be a finite number >= 0.")
        if log_proba is None:
            return
        if not isinstance(log_proba, np.ndarray) or log_proba.shape != mask.shape:
            raise InputValueError(f"log_proba must be an array of shape {mask.shape}.")
        total = np.exp(log_proba.astype(np.float64)).sum(1)
        bad = ~(np.isfinite(log_proba).all(1) & (abs(total - 1) <= 1e-6))
        if bad.any():
            raise InputValueError(
                f"log_proba of image {int(bad.argmax())} must be finite logarithms of "
                "probabilities that sum to 1."
            )

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: Any) -> Candidates:
        log_proba = None if self.log_proba is None else self.log_proba[rows]
        return replace(self, mask=self.mask[rows], log_proba=log_proba)

    def of(self, image: int) -> OneRace:
        """Return the candidates of one image."""
        log_proba = None if self.log_proba is None else torch.as_tensor(self.log_proba[image])
        mask = torch.as_tensor(self.mask[image])
        return OneRace(mask, log_proba, self.strength, self.has_prior)

    @property
    def use(self) -> tuple[float, bool]:
        """How the proposer is used: the strength, and whether it has the priors."""
        return self.strength, self.has_prior

    def like(self, other: Candidates | None) -> bool:
        """Whether both have a proposer, or none, and use it alike."""
        return (
            other is not None
            and (self.log_proba is None) == (other.log_proba is None)
            and self.use == other.use
        )

    @staticmethod
    def concatenate(parts: Sequence[Candidates]) -> Candidates:
        """Join the candidates of further images, in order; all must be alike."""
        log_probas = [part.log_proba for part in parts if part.log_proba is not None]
        return replace(
            parts[0],
            mask=np.concatenate([part.mask for part in parts]),
            log_proba=np.concatenate(log_probas) if log_probas else None,
        )
