r"""DiffusionClassifier: the scikit-learn estimator.

    log p(x | c) ~ -E_{t, eps}[ w(t) ||eps - eps_hat(alpha_t x + sigma_t eps, t, c)||^2 ]
    p(c | x)     = softmax_c( log p(x | c) + log prior(c) )

The class whose prompt predicts the noise best wins (arXiv 2303.16203). ``race`` has the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .backends.resolve import resolve_backend
from .estimator.cost import CostMixin, max_evaluations
from .estimator.fitting import Strategies
from .estimator.inputs import InputMixin
from .estimator.labels import find_classes, warn_of_numbers
from .estimator.prompts import make_prompts
from .estimator.saving import PersistenceMixin
from .estimator.settings import check_variance
from .pruners.base import NoPruning, Pruner
from .race.batches import BatchSize
from .race.engine import Engine
from .race.loop import run_race
from .race.progress import Progress
from .race.recorded import RecordedErrors
from .race.source import ErrorSource, Result
from .race.tape import DrawTape
from .records.compare import comparable_errors
from .records.table import ErrorTable, promised_alpha, table_from_results
from .samplers.base import Sampler
from .samplers.stratified import StratifiedSampler
from .scoring.class_losses import Scoring, check_loss, read_log_prior
from .utils.display import DocumentedMixin
from .utils.validation import all_or_nothing


class DiffusionClassifier(
    DocumentedMixin, InputMixin, CostMixin, PersistenceMixin, ClassifierMixin, BaseEstimator
):
    """Zero-shot image classifier from a diffusion model.

    For each class prompt, noise the image, let the network predict the noise, and pick the
    class whose prompt predicts it best.

    Parameters
    ----------
    backend : None, str, path-like or Backend, default=None
        The noise predictor. None is the small embedded model (32 x 32 scenes of coloured
        digits); a string is a diffusers folder or Hub id, such as
        ``"stable-diffusion-v1-5/stable-diffusion-v1-5"``, loaded once per process.
    prompts : None, str, list of str or dict, default=None
        What is said of a label: a template such as ``"a photo of a {}"``, a list of templates,
        or ``{label: prompt or [prompts]}``. None is the backend's own template.
    sampler : None, str or Sampler, default=None
        Which timesteps and noise to draw. None is ``StratifiedSampler()``, or
        ``ImportanceSampler`` with the backend's own ``default_proposal`` if it has one.
    pruner : None, str or Pruner, default=None
        Which classes stay in the race, and the budget. None is ``RacingPruner()``.
    weighting : str or Weighting, default="uniform"
        How much each timestep counts: "uniform", "likelihood", "exponential", "native" or
        "fitted" (learned).
    loss : {"l2", "l1", "huber", "vlb"}, default="l2"
        Loss of the noise residual, summed over dimensions. "vlb" is the variational bound, in
        nats, for networks that predict a variance too
        (:mod:`diffusion_classifier.noise.variational`).
    prompt_reduction : {"best", "mean", "mixture"}, default="best"
        A class's loss from those of its prompts.
    priors : array-like of shape (n_classes,), optional
        Positive, in the order of ``classes_``; normalised. Uniform by default.
    calibrator : None, str or Calibrator, default=None
        Learns the temperature of probabilities: "temperature", or "temperature-draws", which
        also depends on how many draws the race took. None leaves it at 1.
    n_fit_images : int, default=100
        Most images whose errors ``fit(X, y)`` records, if a strategy learns from them.
    image_size : int or (int, int), optional
        Height and width that images are resized to, in pixels. By default the model's own.
    resize : {"crop", "pad", "squash"}, default="crop"
        Cut the longer side, pad the shorter, or change the aspect ratio.
    batch_size : "auto" or int, default="auto"
        Rows per network call. With a number, results on a CPU are equal to the bit whatever
        the order and number of images; with "auto" they agree to rounding.
    device : str or torch.device, default="auto"
        "auto" is CUDA, else MPS, else the CPU. A Backend that you pass stays where it is.
    dtype : str or torch.dtype, default="auto"
        "auto" is float16 on CUDA and float32 elsewhere. Errors are float32 in any case. A
        Backend that you pass keeps its own.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. One seed gives every image the same draws.
    verbose : "auto", bool or int, default="auto"
        Whether to show a progress bar, of evaluations, images done and time left. "auto" shows one
        in a terminal or notebook, when there is more than a second of work; 0 never, 1 always.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels; columns of the outputs follow it.
    prompts_ : dict
        The prompts of each label.
    backend_ : Backend
        The noise predictor; it shares its weights with ``backend``.
    sampler_ : Sampler
        A copy of ``sampler``, with what it learned; as are the next three of theirs.
    pruner_ : Pruner
        Who stays in the race.
    weighting_ : Weighting
        How much each timestep counts.
    calibrator_ : Calibrator or None
        What learned the temperature.
    loss_ : str
        As ``fit`` saw it; only ``batch_size`` and ``verbose`` take effect without a new ``fit``.
    image_size_ : tuple of (int, int) or None
        Height and width that ``fit`` saw, in pixels; None if they are the model's own.
    resize_ : str
        As ``fit`` saw it.
    seed_ : int
        Key of the draws.
    n_features_in_ : int
        Number of columns, if X is a table, a data frame or flattened rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if X is a data frame and all of them are strings.

    References
    ----------
    A. C. Li, M. Prabhudesai, S. Duggal, E. Brown and D. Pathak, "Your Diffusion Model is
    Secretly a Zero-Shot Classifier", ICCV 2023, arXiv 2303.16203.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.pruners import NoPruning
    >>> scenes = load_scenes("test", n_samples=2)
    >>> clf = DiffusionClassifier(pruner=NoPruning(max_draws=8), random_state=0)
    >>> clf = clf.fit(None, ["red digit", "green digit", "blue digit", "black digit"])
    >>> clf.predict_proba(scenes.images).shape
    (2, 4)
    """

    def __init__(
        self,
        backend: Any = None,
        *,
        prompts: Any = None,
        sampler: Any = None,
        pruner: Any = None,
        weighting: Any = "uniform",
        loss: str = "l2",
        prompt_reduction: str = "best",
        priors: Any = None,
        calibrator: Any = None,
        n_fit_images: int = 100,
        image_size: Any = None,
        resize: str = "crop",
        batch_size: Any = "auto",
        device: Any = "auto",
        dtype: Any = "auto",
        random_state: Any = None,
        verbose: Any = "auto",
    ) -> None:
        self.backend = backend
        self.prompts = prompts
        self.sampler = sampler
        self.pruner = pruner
        self.weighting = weighting
        self.loss = loss
        self.prompt_reduction = prompt_reduction
        self.priors = priors
        self.calibrator = calibrator
        self.n_fit_images = n_fit_images
        self.image_size = image_size
        self.resize = resize
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X: Any, y: Any) -> DiffusionClassifier:
        """Name the classes, encode their prompts and let strategies learn.

        Parameters
        ----------
        X : None, images of length n or a full ErrorTable
            None for zero-shot use. Images are looked at only if a strategy learns from them, as
            a calibrator does (:mod:`diffusion_classifier.estimator.fitting`). For more, see
            ``predict``.
        y : array-like of shape (n,)
            With ``X=None``, the labels of the classes, each once. Else the label of each image.

        Returns
        -------
        DiffusionClassifier
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If there are fewer than two classes, a label has no prompt, a parameter is not one of
            the known values, or with ``X=None`` a label comes twice or a strategy must learn.
        OSError
            If the backend's folder or Hub id cannot be loaded.

        Warns
        -----
        UserWarning
            If labels are numbers but the model reads text, a prompt is longer than its
            tokenizer takes, or the embedded model does not know a word.
        """
        self._keep_settings()
        backend = resolve_backend(self.backend, self.device, self.dtype)
        strategies = Strategies.of(self, backend)
        check_loss(strategies.weighting, self.loss_)
        check_variance(backend, self.loss_)
        X, y = self._check_X_y(X, y, backend)
        classes = find_classes(y)
        prompts = make_prompts(classes, self.prompts, backend.default_template)
        if backend.text_conditional and not isinstance(self.prompts, dict):
            warn_of_numbers(classes, prompts[0][0])
        class_of = np.repeat(np.arange(len(classes)), [len(p) for p in prompts])
        log_prior = read_log_prior(self.priors, len(classes))
        backend.fit(X, y)
        self.classes_ = classes
        self.prompts_ = dict(zip(classes.tolist(), prompts, strict=True))
        labels, flat = classes[class_of].tolist(), list(self._flat_prompts())
        with torch.inference_mode():
            self._condition = backend.encode_classes(labels, flat)
        self.backend_ = backend
        self.weighting_, self.sampler_, self.pruner_, self.calibrator_ = strategies
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        weights = torch.ones(backend.schedule.n_timesteps, dtype=torch.float64)
        unweighted = Scoring(weights, log_prior, torch.as_tensor(class_of), self.prompt_reduction)
        self._scoring = unweighted  # as errors are recorded, before weights are learned
        strategies.learn_from(X, y, self._record, self.n_fit_images, self.seed_)
        self._scoring = strategies.scoring(unweighted, backend)
        BatchSize(self.batch_size, backend.device, 1)  # what predict could not do is refused here
        max_evaluations(self._take_draws(self.pruner_), self.pruner_, self._scoring)
        return self

    def _record(self, X: Any, pilot: bool) -> ErrorTable:
        """All errors of some images; those of a pilot on fewer draws, at uniform timesteps."""
        if isinstance(X, ErrorTable):
            X.check_matches(self.classes_, self._flat_prompts(), self._error_settings())
            return X
        if not pilot:
            return self._race_to_table(X, NoPruning(self.pruner_.max_draws))
        budget = NoPruning(max(self.pruner_.max_draws // 4, 2))
        return self._race_to_table(X, budget, sampler=StratifiedSampler())

    def predict(self, X: Any) -> NDArray:
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
        ValueError, FileNotFoundError
            If there are no images, or one cannot be read; the message names its index.
        FloatingPointError
            If the network returns NaN.
        """
        best = self._log_posterior(X).argmax(1)
        return self.classes_[best]

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Log posterior of every class, of shape (n, n_classes); see ``predict`` for X."""
        return self._log_posterior(X)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Posterior of every class, of shape (n, n_classes), rows summing to 1."""
        return np.exp(self._log_posterior(X))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Log posterior of shape (n, n_classes); for two classes, log-odds of shape (n,)."""
        log_posterior = self._log_posterior(X)
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
            Recorded earlier on the same images in the same order (their number alone is checked),
            with the same network, loss, sampler and integer ``random_state``, for other labels or
            fewer draws: what it lacks is computed; the result is as if all were computed anew.

        Returns
        -------
        ErrorTable
            Accepted in place of images by ``predict`` and its kin.

        Raises
        ------
        ValueError
            If ``table`` is of another number of images, other draws, another network or loss.
        """
        check_is_fitted(self)
        pruner = NoPruning(self.pruner_.max_draws) if full else self.pruner_
        return self._race_to_table(X, pruner, table=table)

    def _race_to_table(self, X: Any, pruner: Pruner, **options: Any) -> ErrorTable:
        with self._race(X, pruner, **options) as (results, _, tape):
            return table_from_results(
                results,
                tape,
                scoring=self._scoring,
                schedule=self.backend_.schedule,
                prediction_type=self.backend_.prediction_type,
                loss=self.loss_,
                classes=self.classes_,
                prompts=self._flat_prompts(),
                seed=self.seed_,
                alpha=promised_alpha(pruner),
                made_by=self._error_settings(),
            )

    def _log_posterior(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        if isinstance(X, ErrorTable):
            settings, weights = self._error_settings(), self._scoring.weights
            X.check_matches(self.classes_, self._flat_prompts(), settings, weights)
            return X.log_posterior(self._scoring).numpy()
        with self._race(X) as (results, n_images, tape):
            log_posterior = np.empty((n_images, len(self.classes_)))
            for result in results:
                row = result.errors, tape.timesteps, tape.density, result.active
                log_posterior[result.image] = self._scoring.log_posterior_of(*row)
        return log_posterior

    def _take_draws(self, pruner: Pruner, sampler: Sampler | None = None) -> DrawTape:
        """The draws of a race, within the pruner's budget."""
        sampler = self.sampler_ if sampler is None else sampler
        return DrawTape.of(sampler, self.backend_.schedule, self.seed_, pruner.max_draws)

    def _flat_prompts(self) -> tuple[str, ...]:
        return tuple(prompt for of_class in self.prompts_.values() for prompt in of_class)

    @contextmanager
    def _race(
        self,
        X: Any,
        pruner: Pruner | None = None,
        *,
        sampler: Sampler | None = None,
        verbose: Any = None,
        table: ErrorTable | None = None,
    ) -> Iterator[tuple[Iterator[Result], int, DrawTape]]:
        """A race over X under way: its results, the number of images and the draws taken."""
        pruner = self.pruner_ if pruner is None else pruner
        tape = self._take_draws(pruner, sampler)
        verbose = self.verbose if verbose is None else verbose
        with (
            self._image_encoder(X, self.backend_) as (n_images, encode),
            Progress(n_images, max_evaluations(tape, pruner, self._scoring), verbose) as progress,
        ):
            source: ErrorSource = Engine(
                self.backend_,
                self._condition,
                encode,
                n_images,
                loss=self.loss_,
                batch_size=self.batch_size,
                on_evaluations=progress.add_evaluations,
            )
            if table is not None:
                recorded = comparable_errors(
                    table,
                    n_images=n_images,
                    classes=self.classes_,
                    prompts=self._flat_prompts(),
                    class_by_position=self.backend_.class_by_position,
                    seed=self.seed_,
                    tape=tape,
                    made_by=self._error_settings(),
                )
                source = RecordedErrors(recorded, source, progress.add_recorded)
            results = run_race(source, tape, pruner, self._scoring, range(n_images))
            yield progress.count(results), n_images, tape
