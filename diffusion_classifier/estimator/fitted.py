"""A fitted classifier: what it can be asked, given what ``fit`` made."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ..backends.base import Backend, Conditioning
from ..images.resize import ResizeMode
from ..pruners import NoPruning, Pruner
from ..race.batches import BatchSizeOption
from ..race.progress import Verbosity
from ..records import ErrorTable, RecordSetup
from ..samplers import Sampler
from ..scoring import Calibrator, LossName, Scoring, Weighting
from .cost import Cost, estimate_cost
from .inputs import Inputs
from .predicting import Predictor
from .saving import write_classifier
from .settings import PictureFormat, errors_made_by


class FittedClassifier(ClassifierMixin, BaseEstimator):
    """Answers of a classifier; a subclass has the parameters, and a ``fit`` that sets these.

    Attributes
    ----------
    batch_size, verbose
        Parameters that predictions read as they are now.
    backend_, sampler_, pruner_, weighting_, calibrator_, loss_, image_size_, resize_, seed_
        What ``fit`` made or saw.
    classes_, prompts_
        Labels, and the prompts of each.
    """

    batch_size: BatchSizeOption
    verbose: Verbosity

    backend_: Backend
    sampler_: Sampler
    pruner_: Pruner
    weighting_: Weighting
    calibrator_: Calibrator | None
    loss_: LossName
    image_size_: tuple[int, int] | None
    resize_: ResizeMode
    seed_: int
    classes_: NDArray[Any]
    prompts_: dict[Any, list[str]]
    _condition: Conditioning  # one row per prompt
    _scoring: Scoring

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image.

        Parameters
        ----------
        X : images of length n
            List of PIL images or paths; uint8 array [n, H, W, 3] or [n, 3, H, W]; float array in
            [0, 1]; tensor; data frame column. For backends that read tables, array [n, features].
            Or an ErrorTable that ``errors`` recorded: then the network is not asked again.

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        InputError
            If there are no images, or one cannot be read; the message names its index.
        NetworkError
            If the network returns NaN, or one row is too much for the memory.
        """
        best = self.predict_log_proba(X).argmax(1)
        return self.classes_[best]

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Log posterior of every class, of shape (n, n_classes); see ``predict`` for X."""
        return self._predictor().log_posterior(X)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Posterior of every class, of shape (n, n_classes), rows summing to 1."""
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Log posterior of shape (n, n_classes); for two classes, log-odds of shape (n,)."""
        log_posterior = self.predict_log_proba(X)
        if len(self.classes_) == 2:
            return log_posterior[:, 1] - log_posterior[:, 0]
        return log_posterior

    def errors(self, X: Any, *, full: bool = False, table: ErrorTable | None = None) -> ErrorTable:
        """The noise-prediction errors that predictions rest on.

        Parameters
        ----------
        X : images of length n
            As for ``predict``.
        full : bool, default=False
            Evaluate every prompt on every draw of the budget, whatever the pruner.
        table : ErrorTable, optional
            Recorded earlier on the same images in the same order (only their number is checked),
            with the same network, loss, sampler and integer ``random_state``, for other labels or
            fewer draws. Only what it lacks is computed; the result is the same as without it.

        Returns
        -------
        ErrorTable
            Accepted in place of images by ``predict`` and its kin.

        Raises
        ------
        InputValueError
            If ``table`` is of another number of images, other draws, another network or loss.
        """
        predictor = self._predictor()
        if full:
            predictor = replace(predictor, pruner=NoPruning(self.pruner_.max_draws))
        return predictor.table(X, table)

    def estimate_cost(self, n_images: int) -> Cost:
        """What predicting ``n_images`` images would cost at most, from one probe.

        Parameters
        ----------
        n_images : int
            How many images.

        Returns
        -------
        Cost
            ``evaluations``: most rows through the network; ``seconds``: their time here.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        InputValueError
            If ``n_images`` is not a positive integer.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> from diffusion_classifier.pruners import StagedPruner
        >>> clf = DiffusionClassifier(pruner=StagedPruner(n_draws=(8,), keep=(2,), max_draws=16))
        >>> clf.fit(None, ["three", "five", "eight"]).estimate_cost(1000).evaluations
        40000
        """
        return estimate_cost(self._predictor(), n_images)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted classifier as JSON and safetensors, without the network.

        Kept are parameters, prompts and their embeddings, everything learned, the seed of the
        draws, and which network it was: its name, revision and a hash of its configuration.
        ``random_state`` is kept unless it is a generator.

        Parameters
        ----------
        folder : str or path-like
            Made if there is none. An earlier save in it is written over.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        FolderInUseError, NotAFolderError
            If the folder holds anything but an earlier save, or is a file.
        InputTypeError
            If a parameter is of a class from outside this package, whose code loading would need.

        Examples
        --------
        >>> import tempfile
        >>> from diffusion_classifier import DiffusionClassifier
        >>> clf = DiffusionClassifier(random_state=0).fit(None, ["one", "two"])
        >>> folder = tempfile.mkdtemp()
        >>> clf.save(folder)
        >>> DiffusionClassifier.load(folder).prompts_
        {'one': ['a one'], 'two': ['a two']}
        """
        check_is_fitted(self)
        write_classifier(folder, self.get_params(deep=False), vars(self))

    def _inputs(self) -> Inputs:
        return Inputs(self, self.backend_, PictureFormat(self.image_size_, self.resize_))

    def _predictor(self) -> Predictor:
        """What ``fit`` made, ready to race images."""
        check_is_fitted(self)
        inputs = self._inputs()
        setup = RecordSetup(
            scoring=self._scoring,
            schedule=self.backend_.schedule,
            prediction_type=self.backend_.prediction_type,
            loss=self.loss_,
            classes=self.classes_,
            prompts=tuple(prompt for of_class in self.prompts_.values() for prompt in of_class),
            seed=self.seed_,
            made_by=errors_made_by(self.backend_, inputs.pictures, self.loss_),
        )
        return Predictor(
            inputs=inputs,
            condition=self._condition,
            setup=setup,
            sampler=self.sampler_,
            pruner=self.pruner_,
            batch_size=self.batch_size,
            verbose=self.verbose,
        )
