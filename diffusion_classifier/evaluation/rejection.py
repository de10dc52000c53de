r"""Rejection: "none of these" as an answer.

Probabilities of K classes add up to 1, also for an image of something else. Two ways out:

    unconditional:  a further class whose prompt is the unconditional one. The network's error for
                    "any image" is what the best of the K prompts has to beat.
    threshold:      answers whose probability is below it are rejected (C. K. Chow, "On optimum
                    recognition error and reject tradeoff", 1970).

An image is rejected if the further class is the most probable one, or if the probability of the
best label is below the threshold.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..backends.resolve import resolve_backend
from ..classifier import DiffusionClassifier
from ..errors import InputTypeError, InputValueError
from ..estimator.classes.labels import find_classes, read_labels
from ..estimator.classes.question import prompts_of
from ..utils.constraints import Booleans, Reals, Table, check_parameters
from ..utils.display import short_repr

NONE_OF_THESE, NO_NUMBER = "none of these", -1


class RejectOption(ClassifierMixin, BaseEstimator):
    """Classifier that may answer "none of these".

    Parameters
    ----------
    estimator : DiffusionClassifier
        It is cloned. Its ``priors``, if given, include the further class, in the order of
        ``classes_``.
    threshold : float in [0, 1], default=0.0
        Answers with a lower probability are rejected. Choose it on images that are not reported.
    unconditional : bool, default=True
        Whether the unconditional prompt races as a further class. The network must have one.

    Attributes
    ----------
    classifier_ : DiffusionClassifier
        The fitted clone. With ``unconditional`` one of its classes is ``none_``, so that
        :func:`evaluate` measures it with images that belong to no label.
    classes_ : ndarray
        Its classes, columns of ``predict_proba``.
    none_ : str or int
        Answer for rejected images: "none of these", or -1 if labels are numbers.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.evaluation import RejectOption
    >>> clf = DiffusionClassifier(random_state=0, prompts="a {} digit")
    >>> option = RejectOption(clf).fit(None, ["red", "green", "blue"])
    >>> option.classifier_.prompts_["none of these"]
    ['']
    >>> scenes = load_scenes("test", n_samples=4)
    >>> scenes.color.tolist()
    ['black', 'yellow', 'red', 'yellow']
    >>> option.predict(scenes.images).tolist()
    ['none of these', 'none of these', 'red', 'none of these']
    """

    _constraints: ClassVar[Table] = {"threshold": Reals(0, 1), "unconditional": Booleans()}

    def __init__(
        self,
        estimator: DiffusionClassifier,
        *,
        threshold: float = 0.0,
        unconditional: bool = True,
    ) -> None:
        self.estimator = estimator
        self.threshold = threshold
        self.unconditional = unconditional

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Fit the classifier, with the unconditional prompt as a further class.

        Parameters
        ----------
        X : None or images of length n
            See ``DiffusionClassifier.fit``.
        y : array-like of shape (n,)
            With ``X=None``, the labels, each once. Otherwise the label of each image; with
            ``unconditional``, some must have the label "none of these" (or -1), as a strategy
            that learns has to see what belongs to no label.

        Returns
        -------
        RejectOption
            The fitted estimator itself.

        Raises
        ------
        InputTypeError
            If ``estimator`` is not a DiffusionClassifier.
        InputValueError
            If the network has no unconditional prompt, another label has it already, no image is
            labelled as none of these, or as ``DiffusionClassifier.fit`` raises it.
        """
        check_parameters(self)
        if not isinstance(self.estimator, DiffusionClassifier):
            raise InputTypeError(
                f"estimator must be a DiffusionClassifier, not {short_repr(self.estimator)}."
            )
        labels = read_labels(y, unique=X is None)
        if labels.dtype.kind == "b":
            raise InputValueError(
                'labels are booleans, which have no third value for "none of these"; use strings.'
            )
        none = NO_NUMBER if labels.dtype.kind in "iuf" else NONE_OF_THESE
        clf = clone(self.estimator)
        if self.unconditional:
            labels = self._further(clf, X, labels, none)
        self.classifier_ = clf.fit(X, labels)
        self.none_ = none
        return self

    def _further(self, clf: DiffusionClassifier, X: Any, labels: Any, none: Any) -> NDArray[Any]:
        """Give the further class its prompt, and return labels with it."""
        backend = resolve_backend(clf.backend, clf.device, clf.dtype)
        nothing = backend.unconditional_prompt
        if nothing is None:
            raise InputValueError(
                f"{short_repr(backend)} has no unconditional prompt; use unconditional=False and a "
                "threshold."
            )
        known = find_classes(labels[labels != none])
        if X is None:
            labels = np.append(known, none)
        elif none not in labels:
            raise InputValueError(
                f"no image has the label {none!r}; add some that belong to no label, or call "
                "fit(None, labels)."
            )
        made = prompts_of(known, clf.prompts, backend)
        prompts = dict(zip(known.tolist(), made, strict=True))
        clf.set_params(prompts={**prompts, none: nothing})
        return labels

    @property
    def classes_(self) -> NDArray[Any]:
        """Classes of the classifier."""
        return self.classifier_.classes_

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, before any is rejected.

        Parameters
        ----------
        X : images of length n or an ErrorTable
            See ``DiffusionClassifier.predict``.

        Returns
        -------
        ndarray of shape (n, K)
            Columns in the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.classifier_.predict_proba(X)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of each image, or ``none_``.

        Parameters
        ----------
        X : images of length n or an ErrorTable
            See ``DiffusionClassifier.predict``.

        Returns
        -------
        ndarray of shape (n,)
        """
        return self.decide(self.predict_proba(X))

    def decide(self, proba: ArrayLike) -> NDArray[Any]:
        """Return the answers that follow from probabilities, such as for another threshold.

        Parameters
        ----------
        proba : array-like of shape (n, K)
            As ``predict_proba`` returns them.

        Returns
        -------
        ndarray of shape (n,)
        """
        check_is_fitted(self)
        proba = np.asarray(proba)
        # The further label lets the array hold it, where no class is called so.
        answers = np.append(self.classes_, self.none_)[proba.argmax(1)]
        answers[proba.max(1) < self.threshold] = self.none_
        return answers
