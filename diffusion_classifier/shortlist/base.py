r"""The interface of shortlists, and what all of them do.

A shortlist has a *proposer*: something cheap that gives every class a probability q(c | x). The k
most probable classes are the *candidates* of an image, which then race. With a *prior strength* s,
the race also takes ``q(c | x)^s`` as its prior. A good s, if the proposer's mistakes were
independent of those of the diffusion model, would be 1; on labelled images, s maximises

    sum_i log softmax_C(log p_i(c) + s log q_i(c))[true class of i],

over the images i whose true class is a candidate, where p are the probabilities of the race. This
function of s is concave. If q contains the priors of the classes, as a race over groups does,
``q(c | x) / p(c)`` takes its place, so that priors count once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from torch import Tensor

from ..backends.base import Conditioning
from ..errors import InputValueError
from ..scoring.candidates import Candidates
from ..utils.constraints import MANY, Integers, Options, Reals, Table
from ..utils.display import DocumentedMixin, short_repr

_LEAST = 1e-10  # probability that a proposer gives; it may not exclude what it names
_LARGEST_STRENGTH = 10.0


class Asked(NamedTuple):
    """Prompts that a model can race.

    Attributes
    ----------
    prompts : list of str
    class_of : Tensor of shape (P,), dtype int64
        The group that each prompt describes.
    condition : Conditioning of length P
    """

    prompts: list[str]
    class_of: Tensor
    condition: Conditioning


class Proposal(NamedTuple):
    """What a proposer says of some images.

    Attributes
    ----------
    log_proba : ndarray of shape (N, K)
        NaN for images that could not be read.
    skipped : sequence of (int, str)
        Images that could not be read, and why, as far as the proposer knows.
    """

    log_proba: NDArray[np.float64]
    skipped: Sequence[tuple[int, str]] = ()


class Model(Protocol):
    """What shortlists may use of the classifier that they belong to."""

    @property
    def classes(self) -> NDArray[Any]:
        """Labels [K]."""
        ...

    @property
    def log_prior(self) -> Tensor:
        """Log prior [K] of the classes."""
        ...

    def prompts_of(self, labels: Sequence[Any], prompts: Any, template: str) -> list[list[str]]:
        """Make the prompts of labels, by default with a template."""
        ...

    def ask(self, labels: Sequence[Any], prompts: Any) -> Asked:
        """Make and encode the prompts of other labels."""
        ...

    def race_groups(self, asked: Asked, log_prior: Tensor, X: Any, on_error: str) -> Proposal:
        """Race these prompts for every image, and return the log posterior of their groups."""
        ...

    def survey(self, X: Any, on_error: str, *, read: bool) -> tuple[int, dict[int, str]]:
        """Return the number of images, and those that cannot be read, if all are to be read."""
        ...

    def cost_of(self, asked: Asked) -> int:
        """Return the maximum number of evaluations of one image in such a race."""
        ...


class BaseShortlist(DocumentedMixin, BaseEstimator, ABC):
    """Base class of shortlists, which propose the classes that an image races.

    Attributes
    ----------
    k : int
        Number of candidates per image.
    prior_strength : float or "learned"
        How much of the proposer's log probabilities is added to the log priors.
    prior_strength_ : float
        The same, after ``fit``.
    """

    k: int
    prior_strength: float | Literal["learned"]
    prior_strength_: float
    _has_prior: ClassVar[bool] = False  # whether proposals contain the priors of the classes
    _constraints: ClassVar[Table] = {
        "k": Integers(1, MANY),
        "prior_strength": Options("learned") | Reals(0, _LARGEST_STRENGTH),
    }

    @abstractmethod
    def fit(self, X: Any, y: Any, model: Model) -> Self:
        """Prepare proposals for the classes of a model; called by the classifier's ``fit``.

        Parameters
        ----------
        X : None or images of length n
            None for zero-shot use.
        y : ndarray of shape (n,)
            Labels of X, or the classes if X is None.
        model : Model
            Knows the classes.
        """

    @abstractmethod
    def propose(self, X: Any, model: Model, on_error: str = "raise") -> Proposal:
        """Return log probabilities of all classes for every image.

        Parameters
        ----------
        X : images of length N
            What the classifier's ``predict`` got.
        model : Model
        on_error : {"raise", "skip"}, default="raise"
        """

    def propose_for_fit(self, X: Any, rows: NDArray[Any], model: Model) -> Proposal:
        """Return proposals for some training images, as they would be for unseen ones."""
        return self.propose(_safe_indexing(X, rows), model)

    def choose(self, log_proba: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Choose the candidates [N, K] from log probabilities [N, K]: the k largest of each row."""
        k = min(self.k, log_proba.shape[1])
        best = np.argsort(-log_proba, axis=1, kind="stable")[:, :k]
        mask = np.zeros(log_proba.shape, bool)
        np.put_along_axis(mask, best, True, 1)
        return mask

    def max_candidates(self, n_classes: int) -> int:
        """Return the largest possible number of candidates of an image."""
        return min(self.k, n_classes)

    def max_evaluations(self, model: Model) -> int:
        """Return the most evaluations of the model that one proposal takes; 0 without any."""
        return 0

    def candidates(
        self, X: Any, model: Model, on_error: str = "raise"
    ) -> tuple[Candidates, dict[int, str]]:
        """Return the candidates of every image, and the images that could not be read.

        Raises
        ------
        InputValueError
            If the proposer returns NaN for an image and ``on_error`` is "raise".
        """
        return self.candidates_from(self.propose(X, model, on_error), on_error)

    def candidates_from(
        self, proposal: Proposal, on_error: str = "raise"
    ) -> tuple[Candidates, dict[int, str]]:
        """Choose candidates from a proposal; see :meth:`candidates`."""
        log_proba, skipped = proposal.log_proba, dict(proposal.skipped)
        for image in np.flatnonzero(np.isnan(log_proba).any(1)).tolist():
            reason = f"image {image} has no place on the shortlist: its proposer returned NaN."
            reason = skipped.setdefault(image, reason)
            if on_error == "raise":
                raise InputValueError(reason)
        unread = np.isin(np.arange(len(log_proba)), list(skipped))
        log_proba = np.where(unread[:, None], 0.0, log_proba)
        mask = self.choose(log_proba) | unread[:, None]  # below the floor all classes would tie
        log_proba = log_softmax(np.maximum(log_proba, np.log(_LEAST)), axis=1)
        strength = getattr(self, "prior_strength_", 0.0)
        return Candidates(mask, log_proba, strength, self._has_prior), skipped


def learn_strength(
    log_posterior: NDArray[np.float64],
    candidates: Candidates,
    true_class: NDArray[Any],
    log_prior: NDArray[np.float64],
) -> float:
    """Learn the prior strength from races without it.

    Parameters
    ----------
    log_posterior : ndarray of shape (N, K)
        Of races with prior strength 0.
    candidates : Candidates
        With the proposer's log probabilities.
    true_class : ndarray of shape (N,), dtype int
    log_prior : ndarray of shape (K,)
        Of the classes.

    Returns
    -------
    float
        0 if no image has its true class among several candidates.
    """
    assert candidates.log_proba is not None
    rows = np.arange(len(true_class))
    useful = candidates.mask[rows, true_class] & (candidates.mask.sum(1) > 1)
    if not useful.any():
        return 0.0
    proposal = candidates.log_proba - (log_prior if candidates.has_prior else 0.0)
    race, proposer, true = (values[useful] for values in (log_posterior, proposal, true_class))
    mask = candidates.mask[useful]
    rows = np.arange(len(true))

    def loss(strength: float) -> float:
        joint = np.where(mask, race + strength * proposer, -np.inf)
        return -float(log_softmax(joint, axis=1)[rows, true].sum())

    found = minimize_scalar(loss, bounds=(0.0, _LARGEST_STRENGTH), method="bounded")
    return float(found.x) if loss(float(found.x)) < loss(0.0) else 0.0


def recall(candidates: ArrayLike, y: ArrayLike, classes: ArrayLike) -> float:
    """Return the share of images whose true class is a candidate.

    No race can find a class that is not on the shortlist, so 1 minus the recall is what a shortlist
    costs in accuracy at most.

    Parameters
    ----------
    candidates : array-like of shape (n, K), dtype bool
        As ``DiffusionClassifier.propose`` returns them.
    y : array-like of shape (n,)
        True labels.
    classes : array-like of shape (K,)
        ``classes_`` of the classifier.

    Returns
    -------
    float

    Raises
    ------
    InputValueError
        If lengths differ, there are no images, or a label is not among the classes.

    Examples
    --------
    >>> recall([[True, False], [True, False]], ["cat", "dog"], ["cat", "dog"])
    0.5
    """
    mask, labels, known = (np.asarray(value) for value in (candidates, y, classes))
    if mask.shape != (len(labels), len(known)) or not len(labels):
        raise InputValueError(
            f"candidates have shape {mask.shape}, but there are {len(labels)} labels and "
            f"{len(known)} classes; give one row per label, and at least one."
        )
    column = {label: k for k, label in enumerate(known.tolist())}
    unknown = [label for label in labels.tolist() if label not in column]
    if unknown:
        raise InputValueError(
            f"y has the label {short_repr(unknown[0])}, which is not among the classes."
        )
    true = [column[label] for label in labels.tolist()]
    return float(mask[np.arange(len(true)), true].mean())
