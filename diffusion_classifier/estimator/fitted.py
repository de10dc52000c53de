"""Methods of a fitted classifier, all but ``fit`` itself."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ..backends.base import Backend, Conditioning
from ..callbacks import Callback
from ..errors import InputValueError
from ..images.resize import ResizeMode
from ..pruners import NoPruning, Pruner
from ..race.batches import BatchSizeOption
from ..race.progress import Verbosity
from ..records import ErrorTable, RecordSetup
from ..samplers import Sampler
from ..scoring import Calibrator, LossName, Scoring, Weighting
from ..shortlist import BaseShortlist
from ..utils.devices import Devices, devices_of_list
from ..utils.provenance import check_unchanged
from .classes.candidates import GivenCandidates
from .classes.question import row_names
from .cost import Cost, estimate_cost
from .inputs import Inputs, OnError
from .predicting import Predictor, Skipped
from .saving import write_classifier
from .settings import PictureFormat


class FittedClassifier(ClassifierMixin, BaseEstimator):
    """Prediction methods; a subclass adds the parameters and a ``fit`` that sets the attributes.

    Attributes
    ----------
    batch_size, verbose, memory, callbacks, device
        Parameters that predictions read at every call.
    backend_, sampler_, pruner_, weighting_, calibrator_, shortlist_, loss_, image_size_, resize_
        Set by ``fit``; see ``DiffusionClassifier``.
    classes_, prompts_
        Labels, and the prompts of each label.
    """

    batch_size: BatchSizeOption
    verbose: Verbosity
    memory: str | os.PathLike[str] | None
    callbacks: Sequence[Callback] | None
    device: Devices
    backend_: Backend
    sampler_: Sampler
    pruner_: Pruner
    weighting_: Weighting
    calibrator_: Calibrator | None
    shortlist_: BaseShortlist | None = None
    loss_: LossName
    image_size_: tuple[int, int] | None
    resize_: ResizeMode
    seed_: int
    classes_: NDArray[Any]
    prompts_: dict[Any, list[str]]
    _condition: Conditioning  # one row per prompt
    _scoring: Scoring
    _network: dict[str, Any]  # identity of the backend at fit
    _skipped: Skipped  # only after a prediction that skipped images

    # on_error is an option of a call, not metadata for scikit-learn to route.
    __metadata_request__predict: ClassVar = {"on_error": UNUSED}
    __metadata_request__predict_proba: ClassVar = {"on_error": UNUSED}
    __metadata_request__predict_log_proba: ClassVar = {"on_error": UNUSED}
    __metadata_request__decision_function: ClassVar = {"on_error": UNUSED}
    __metadata_request__score: ClassVar = {"on_error": UNUSED}

    @property
    def skipped_(self) -> Skipped:
        """Images that the latest prediction skipped, with ``on_error="skip"``: (index, reason)."""
        return getattr(self, "_skipped", [])

    def predict(
        self, X: Any, *, on_error: OnError = "raise", candidates: GivenCandidates = None
    ) -> NDArray[Any]:
        """Predict the most probable class of each image.

        Parameters
        ----------
        X : images of length n
            A list of PIL images or paths; a folder of images
            (:func:`~diffusion_classifier.datasets.load_image_folder` reads one sub-folder per
            class); a uint8 array [n, H, W, 3] or [n, 3, H, W]; a float array in [0, 1]; a tensor;
            a data frame column; Latents from ``encode``. For backends that read tables, an array
            [n, features]; for those with an ``input_shape``, an array [n, *input_shape]. An
            ErrorTable from ``errors`` is answered without the network.
        on_error : {"raise", "skip"}, default="raise"
            What to do with images that cannot be read, hold NaN or make the network return NaN.
            "raise" checks the headers of all files before the network runs; a file that is damaged
            after its header raises when it is decoded. "skip" predicts the others: skipped images
            get the label None, in an object array, or NaN from the other methods. ``skipped_``
            lists them.
        candidates : list of n lists of labels, or array of shape (n, n_classes), dtype bool
            The classes that each image may have, at least one; others get probability 0. They
            replace the shortlist. By default those on the shortlist race, else all classes. An
            ErrorTable must be full, or hold the errors of these classes.

        Returns
        -------
        ndarray of shape (n,)
            Predicted labels.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        InputError
            If there are no images or, unless they are skipped, one cannot be read, or its
            candidates are empty or not known. The message gives its index.
        NetworkError
            If the network returns NaN or infinity, or memory runs out with a single row.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> from diffusion_classifier.datasets import load_scenes
        >>> clf = DiffusionClassifier(prompts="a {} digit", random_state=0)
        >>> clf = clf.fit(None, ["blue", "green"])
        >>> images = [*load_scenes("test", n_samples=8).images[:1], "missing.png"]
        >>> clf.predict(images, on_error="skip").tolist()
        ['blue', None]
        >>> clf.skipped_
        [(1, "image 1: 'missing.png' does not exist; check the path.")]
        """
        log_posterior = self.predict_log_proba(X, on_error=on_error, candidates=candidates)
        labels = self.classes_[log_posterior.argmax(1)]
        missing = np.isnan(log_posterior).any(1)
        if missing.any():
            labels = labels.astype(object)
            labels[missing] = None
        return labels

    def predict_log_proba(
        self, X: Any, *, on_error: OnError = "raise", candidates: GivenCandidates = None
    ) -> NDArray[np.float64]:
        """Compute log posteriors of shape (n, n_classes); see ``predict`` for the parameters."""
        found, skipped = self._predictor(self.callbacks).log_posterior(X, on_error, candidates)
        self._note_skipped(skipped)
        return found

    def predict_proba(
        self, X: Any, *, on_error: OnError = "raise", candidates: GivenCandidates = None
    ) -> NDArray[np.float64]:
        """Compute posteriors of shape (n, n_classes); rows sum to 1, those skipped are NaN."""
        return np.exp(self.predict_log_proba(X, on_error=on_error, candidates=candidates))

    def decision_function(
        self, X: Any, *, on_error: OnError = "raise", candidates: GivenCandidates = None
    ) -> NDArray[np.float64]:
        """Compute log posteriors (n, n_classes); for two classes, log-odds (n,) of the second."""
        log_posterior = self.predict_log_proba(X, on_error=on_error, candidates=candidates)
        if len(self.classes_) == 2:
            return log_posterior[:, 1] - log_posterior[:, 0]
        return log_posterior

    def score(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        on_error: OnError = "raise",
        candidates: GivenCandidates = None,
    ) -> float:
        """Return the accuracy, of those images that are not skipped.

        Parameters
        ----------
        X : images of length n
            See ``predict``.
        y : array-like of shape (n,)
            True labels, also of skipped images.
        sample_weight : array-like of shape (n,), optional
        on_error, candidates : optional
            See ``predict``.

        Returns
        -------
        float

        Raises
        ------
        InputValueError
            If every image is skipped, or as ``predict`` raises it.
        ValueError
            Raised by scikit-learn if X, y and ``sample_weight`` differ in length.
        """
        answers = self.predict(X, on_error=on_error, candidates=candidates)
        y = np.asarray(y)
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        check_consistent_length(answers, y, weights)
        kept = np.ones(len(y), dtype=bool)
        kept[[image for image, _ in self.skipped_]] = False
        if not kept.any():
            raise InputValueError(f"no image can be read; the first: {self.skipped_[0]}")
        answers = answers[kept].astype(self.classes_.dtype)
        return float(accuracy_score(y[kept], answers, sample_weight=weights[kept]))

    def errors(
        self,
        X: Any,
        *,
        full: bool = False,
        table: ErrorTable | None = None,
        on_error: OnError = "raise",
        candidates: GivenCandidates = None,
    ) -> ErrorTable:
        """Compute the noise-prediction errors on which predictions are based.

        Parameters
        ----------
        X : images of length n
            See ``predict``.
        full : bool, default=False
            Whether to evaluate every prompt on every draw of the budget instead of pruning; also
            prompts of classes that are no candidates, though answers stay among candidates.
        table : ErrorTable, optional
            Errors recorded earlier, for other labels or fewer draws, on the first images of X in
            the same order (the images themselves are not compared), with the same network, loss,
            sampler and integer ``random_state``. Only errors missing from it are computed; the
            result is the same as without it.
        on_error : {"raise", "skip"}, default="raise"
            See ``predict``. Skipped images have no errors, and are listed in ``skipped`` of the
            table and in ``skipped_``.
        candidates : list of n lists of labels, or array of shape (n, n_classes), dtype bool
            See ``predict``. The table keeps them.

        Returns
        -------
        ErrorTable
            ``predict`` and the other prediction methods accept it in place of images.

        Raises
        ------
        InputValueError
            If ``table`` holds more images than X, or its draws, network or loss differ, or every
            image is skipped.

        Notes
        -----
        Whatever is raised during the race, Ctrl-C included, has the errors of the images that
        finished before as its attribute ``partial``: an ErrorTable, or None. Images before the
        last finished one whose races did not end are listed in its ``skipped``. With
        ``table=error.partial`` a second call completes the work::

            try:
                table = clf.errors(X)
            except KeyboardInterrupt as error:
                partial = error.partial
            table = clf.errors(X, table=partial)
        """
        predictor = self._predictor(self.callbacks)
        if full:
            everything = NoPruning(self.pruner_.max_draws)
            predictor = replace(predictor, pruner=everything, everyone=True)
        found = predictor.table(X, table, on_error, candidates)
        self._note_skipped(found.skipped)
        return found

    def propose(self, X: Any, *, on_error: OnError = "raise") -> NDArray[np.bool_]:
        """Return which classes of each image are on the shortlist, without racing them.

        The result is a boolean array of shape (n, n_classes): all True without a shortlist, and
        all False for skipped images. ``diffusion_classifier.shortlist.recall`` says how often the
        true class is among them. See ``predict`` for the parameters.
        """
        mask, skipped = self._predictor().propose(X, on_error)
        self._note_skipped(skipped)
        return mask

    def estimate_cost(self, n_images: int, table: ErrorTable | None = None) -> Cost:
        """Estimate the maximum cost of predicting ``n_images`` images.

        Parameters
        ----------
        n_images : int
            Number of images.
        table : ErrorTable, optional
            Errors recorded earlier, as for ``errors``, not counted again; those in ``memory`` are.

        Returns
        -------
        Cost
            ``evaluations``: maximum number of rows through the network; ``seconds``: their time
            on this machine, extrapolated from a short measurement.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        InputValueError
            If ``n_images`` is not a positive integer, or ``table`` does not fit; see ``errors``.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> from diffusion_classifier.pruners import StagedPruner
        >>> clf = DiffusionClassifier(pruner=StagedPruner(n_draws=(8,), keep=(2,), max_draws=16))
        >>> clf.fit(None, ["three", "five", "eight"]).estimate_cost(1000).evaluations
        40000
        """
        return estimate_cost(self._predictor(), n_images, table)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Save the fitted classifier as JSON and safetensors, without the network.

        The folder holds the parameters except RandomState instances, the prompts and embeddings,
        everything learned, the seed, and the network's name, revision and configuration hash.

        The folder can be loaded at any moment: it holds the earlier save until the new one is
        complete. An interrupted save (a full disk, Ctrl-C, a killed process) changes nothing;
        what it leaves behind is removed by the next save. Processes take turns, except on Windows.

        Parameters
        ----------
        folder : str or path-like
            Created if it does not exist. An earlier save in it is replaced. Neither it nor a file
            in it may be a symbolic link.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        FolderInUseError, NotAFolderError
            If the folder holds other files than an earlier save, or is a file.
        InputFileError
            If the folder or a file in it is a symbolic link, or cannot be written.
        InputTypeError
            If a parameter is an instance of a class from outside this package: loading would have
            to run that class's code.
        InputValueError
            If the network has changed since ``fit``, or an attribute whose name ends in an
            underscore was added that ``fit`` does not set.

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
        check_unchanged(self._network, self.backend_.identity())
        write_classifier(folder, self.get_params(deep=False), vars(self))

    def _note_skipped(self, skipped: Iterable[tuple[int, str]]) -> None:
        """Keep what the latest call skipped; without any, attributes stay as they are after fit."""
        if hasattr(self, "_skipped"):
            del self._skipped
        if skipped := list(skipped):
            self._skipped = skipped

    def _inputs(self) -> Inputs:
        return Inputs(self, self.backend_, PictureFormat(self.image_size_, self.resize_))

    def _predictor(self, callbacks: Sequence[Callback] | None = None) -> Predictor:
        """Bundle the fitted attributes into a Predictor, which tells these callbacks."""
        check_is_fitted(self)
        check_unchanged(self._network, network := self.backend_.identity())
        inputs = self._inputs()
        setup = RecordSetup(
            scoring=self._scoring,
            schedule=self.backend_.schedule,
            prediction_type=self.backend_.prediction_type,
            loss=self.loss_,
            classes=self.classes_,
            prompts=row_names(self.prompts_, len(self._condition)),
            seed=self.seed_,
            made_by={**inputs.pictures.made_by(self.backend_, network), "loss": self.loss_},
        )
        return Predictor(
            inputs=inputs,
            condition=self._condition,
            setup=setup,
            sampler=self.sampler_,
            pruner=self.pruner_,
            batch_size=self.batch_size,
            verbose=self.verbose,
            memory=self.memory,
            shortlist=self.shortlist_,
            callbacks=callbacks or (),
            devices=devices_of_list(self.device),
            check_likelihood=self.weighting_.is_likelihood and self.loss_ == "l2",
        )
