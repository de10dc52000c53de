"""A shortlist made by any classifier with ``predict_proba``."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.utils import _safe_indexing

from ..errors import DiffusionClassifierError, InputTypeError, InputValueError, OutputShapeError
from ..images.files import list_images
from ..utils.constraints import Booleans, Table
from ..utils.display import short_repr
from .base import BaseShortlist, Model, Proposal

_FOLDS = 5


class Shortlist(BaseShortlist):
    """Race only the k classes that a cheap classifier finds most probable.

    The proposer gets the same X as the diffusion classifier, with ``on_error="skip"`` only what
    this can read. It may be a classifier of embeddings, a small network, or another
    ``DiffusionClassifier`` with a smaller model.

    Parameters
    ----------
    proposer : classifier
        Has ``predict_proba`` and, once fitted, ``classes_`` with the same labels. Its columns may
        be in another order.
    k : int, default=10
        Number of candidates per image, at least 1. With 1, nothing races.
    prior_strength : float or "learned", default=0.0
        How much of the proposer's log probabilities is added to the log priors of the race: 0
        keeps them out, 1 multiplies both probabilities. "learned" finds it in ``fit(X, y)``, by
        races of at most ``n_fit_images`` images.
    prefit : bool, default=True
        Whether the proposer is fitted already. It is then used as it is, and shared by clones. If
        False, ``fit(X, y)`` fits a clone of it on X and y.

    Attributes
    ----------
    proposer_ : classifier
        The fitted proposer. It is not saved; see ``DiffusionClassifier.load``.
    prior_strength_ : float
        The prior strength in use.

    Raises
    ------
    InputTypeError
        In ``fit``, if the proposer is no classifier with ``predict_proba``.
    InputValueError
        In ``fit``, if its labels differ, or it is to be fitted or the prior strength to be learned
        without images. When it predicts, if the proposer refuses X.
    OutputShapeError
        If the proposer does not return one row per image.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.backends import GaussianBackend
    >>> from diffusion_classifier.shortlist import Shortlist
    >>> X, y = [[-3.0], [-2.5], [0.0], [0.5], [2.5], [3.0]], ["a", "a", "b", "b", "c", "c"]
    >>> shortlist = Shortlist(LogisticRegression().fit(X, y), k=2)
    >>> clf = DiffusionClassifier(GaussianBackend(), shortlist=shortlist, random_state=0)
    >>> clf.fit(X, y).propose(X)[[0, 5]].tolist()
    [[True, True, False], [False, True, True]]
    >>> clf.predict(X).tolist()
    ['a', 'a', 'b', 'b', 'c', 'c']
    """

    _constraints: ClassVar[Table] = {**BaseShortlist._constraints, "prefit": Booleans()}

    _held_out: NDArray[np.float64] | None

    def __init__(
        self,
        proposer: Any,
        k: int = 10,
        *,
        prior_strength: float | Literal["learned"] = 0.0,
        prefit: bool = True,
    ) -> None:
        self.proposer = proposer
        self.k = k
        self.prior_strength = prior_strength
        self.prefit = prefit

    def __sklearn_clone__(self) -> Self:
        proposer = self.proposer if self.prefit else clone(self.proposer, safe=False)
        return type(self)(proposer, self.k, prior_strength=self.prior_strength, prefit=self.prefit)

    def fit(self, X: Any, y: Any, model: Model) -> Self:
        if not hasattr(self.proposer, "predict_proba") or isinstance(self.proposer, type):
            raise InputTypeError(
                f"proposer={short_repr(self.proposer)} must be a classifier with predict_proba"
                + (" (an instance, not the class)." if isinstance(self.proposer, type) else ".")
            )
        proposer, self._held_out = self.proposer, None
        if not self.prefit:
            if X is None:
                raise InputValueError(
                    "the shortlist's proposer is to be fitted (prefit=False), which needs labelled "
                    "images; call fit(X, y), or give a fitted proposer."
                )
            self._held_out = self._predict_held_out(X, y)
            proposer = clone(self.proposer).fit(X, y)
        self.adopt(proposer, model.classes)
        self.prior_strength_ = 0.0
        return self

    def adopt(self, proposer: Any, classes: NDArray[Any]) -> None:
        """Use a fitted proposer.

        Parameters
        ----------
        proposer : classifier
        classes : ndarray of shape (K,)
            The labels that it must know.

        Raises
        ------
        InputValueError
            If it is not fitted, or its labels differ.
        """
        known = getattr(proposer, "classes_", None)
        if known is None:
            raise InputValueError(
                f"the shortlist's proposer {short_repr(proposer)} has no classes_; fit it "
                "first, or set prefit=False to have it fitted on the images of fit(X, y)."
            )
        found, asked = set(np.asarray(known).tolist()), set(classes.tolist())
        if found != asked:
            problem = [
                f"{what} {short_repr(sorted(labels)[0])}"
                for what, labels in (("lacks", asked - found), ("has", found - asked))
                if labels
            ]
            raise InputValueError(
                f"the shortlist's proposer has {len(found)} classes and the classifier "
                f"{len(asked)}: the proposer {' and '.join(problem)}; fit both on the same labels."
            )
        self.proposer_, self._held_out = proposer, getattr(self, "_held_out", None)

    def propose(self, X: Any, model: Model, on_error: str = "raise") -> Proposal:
        reads = hasattr(self.proposer_, "skipped_")  # and finds out what cannot be read
        n_images, skipped = model.survey(X, on_error, read=on_error == "skip" and not reads)
        if reads:
            proba = self.proposer_.predict_proba(X, on_error=on_error)
            return Proposal(self._in_order(proba, n_images, model), self.proposer_.skipped_)
        log_proba = np.full((n_images, len(model.classes)), np.nan)
        readable = np.setdiff1d(np.arange(n_images), list(skipped))
        if skipped:
            X = list_images(X) if isinstance(X, str | os.PathLike) else X
            X = _safe_indexing(X, readable)
        if len(readable):
            log_proba[readable] = self._in_order(self._ask(X), len(readable), model)
        return Proposal(log_proba, sorted(skipped.items()))

    def _ask(self, X: Any) -> Any:
        """Return the proposer's probabilities; its complaints about X say whose they are."""
        try:
            return self.proposer_.predict_proba(X)
        except DiffusionClassifierError:
            raise
        except ValueError as error:
            raise InputValueError(
                f"the shortlist's proposer {type(self.proposer_).__name__} refuses X: {error} It "
                "gets the same X as the classifier: remove or fix what it cannot read. "
                'on_error="skip" leaves out images that the classifier cannot read.'
            ) from error

    def propose_for_fit(self, X: Any, rows: NDArray[Any], model: Model) -> Proposal:
        if self._held_out is None:
            return super().propose_for_fit(X, rows, model)
        held_out, self._held_out = self._held_out[rows], None
        return Proposal(self._in_order(held_out, len(rows), model))

    def _predict_held_out(self, X: Any, y: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return probabilities of training images by proposers that have not seen them.

        None if they are not needed, or a class has a single image.
        """
        n_folds = min(_FOLDS, int(np.unique(y, return_counts=True)[1].min()))
        if self.prior_strength != "learned" or n_folds < 2:
            return None
        proposer = clone(self.proposer)
        return cross_val_predict(proposer, X, y, cv=n_folds, method="predict_proba")

    def _in_order(self, proba: Any, n_images: int, model: Model) -> NDArray[np.float64]:
        """Return log probabilities in the order of the model's classes."""
        proba = np.asarray(proba, dtype=np.float64)
        expected = (n_images, len(model.classes))
        if proba.shape != expected:
            raise OutputShapeError(
                f"the shortlist's proposer returned probabilities of shape {proba.shape}; expected "
                f"{expected}, one row per image and one column per class. Fix its predict_proba."
            )
        column = {label: k for k, label in enumerate(np.asarray(self.proposer_.classes_).tolist())}
        order = [column[label] for label in model.classes.tolist()]
        with np.errstate(divide="ignore"):
            log_proba: NDArray[np.float64] = np.log(proba[:, order].clip(min=0))
        return log_proba
