r"""DiffusionClassifier: the scikit-learn estimator.

    log p(x | c) ~ -E_{t, eps}[ w(t) ||eps - eps_hat(alpha_t x + sigma_t eps, t, c)||^2 ]
    p(c | x)     = softmax_c( log p(x | c) + log prior(c) )

The class whose prompt predicts the noise best wins (arXiv 2303.16203). A *draw* is a timestep and
noise (t, eps); the same draws serve all classes and images. This module holds the parameters and
``fit``; :mod:`diffusion_classifier.estimator.predicting` computes predictions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .backends.base import Backend
from .backends.resolve import Pipeline, resolve_backend
from .callbacks import Callback
from .estimator.classes.labels import find_classes
from .estimator.classes.prompts import Prompts
from .estimator.classes.question import Question
from .estimator.fitted import FittedClassifier
from .estimator.fitting import fit_shortlist, learn_strategies
from .estimator.inputs import Inputs
from .estimator.parameters import ClassifierParameters
from .estimator.saving import read_classifier, refusing
from .estimator.settings import PictureFormat, check_variance
from .images.latents import Latents
from .images.resize import ResizeMode
from .pruners import Pruner, PrunerName
from .race.batches import BatchSizeOption
from .race.progress import Verbosity
from .samplers import Sampler, SamplerName
from .scoring import (
    Calibrator,
    CalibratorName,
    LossName,
    PromptReduction,
    Scoring,
    Weighting,
    WeightingName,
)
from .scoring.class_losses import check_loss, read_log_prior
from .shortlist import BaseShortlist
from .strategies import Strategies
from .utils.constraints import check_parameters
from .utils.devices import Devices
from .utils.display import DocumentedMixin
from .utils.validation import all_or_nothing


class DiffusionClassifier(DocumentedMixin, ClassifierParameters, FittedClassifier):
    """Zero-shot image classifier based on a diffusion model.

    Add noise to the image, let the network predict the noise under each class prompt, and choose
    the class whose prompt predicts it best.

    Parameters
    ----------
    backend : None, str, path-like, Backend or diffusers pipeline, default=None
        The noise predictor. None is the small embedded model (32 x 32 scenes of coloured
        digits). A string is a diffusers folder or Hub id, such as
        ``"stable-diffusion-v1-5/stable-diffusion-v1-5"``, loaded once per process. A pipeline in
        memory becomes a ``DiffusersBackend``. Other networks need a ``FunctionBackend``.
    prompts : None, str, list of str or dict, default=None
        How labels become prompts: a template such as ``"a photo of a {}"``, a list of templates,
        or ``{label: prompt or [prompts]}``. None uses the backend's own template, with the right
        article: "a photo of an apple". Networks that know classes by index take
        ``{label: index}``.
    sampler : None, str or Sampler, default=None
        Chooses the timesteps and noise. None is ``StratifiedSampler()``, or
        ``ImportanceSampler`` with the backend's ``default_proposal`` if it has one.
    pruner : None, str or Pruner, default=None
        Drops losing classes early, and sets the budget of draws. None is ``RacingPruner()``.
    weighting : str or Weighting, default="uniform"
        Weight w(t) of each timestep: "uniform", "likelihood", "exponential", "native" (as in the
        network's own training loss) or "fitted" (learned from images).
    loss : {"l2", "l1", "huber", "vlb"}, default="l2"
        Loss of the noise residual, summed over dimensions. "vlb" is the variational bound, in
        nats, for networks that also predict a variance
        (:mod:`diffusion_classifier.noise.variational`).
    prompt_reduction : {"best", "mean", "mixture", "embedding"}, default="best"
        How the losses of a class's prompts are reduced to one class loss. "embedding" averages
        their text embeddings instead, so that a class costs no more than one prompt.
    priors : array-like of shape (n_classes,), optional
        Positive class priors in the order of ``classes_``, normalised; by default uniform.
    calibrator : None, float, str or Calibrator, default="natural"
        Temperature of the probabilities. "natural" needs no data
        (:mod:`diffusion_classifier.scoring.natural`). "temperature" is learned from images;
        "temperature-draws" also depends on draws. A number is T itself; None is 1, as in the paper.
    n_fit_images : int, default=100
        Maximum number of images whose errors ``fit(X, y)`` records, if a strategy learns from them.
    n_fit_samples : int, default=0
        Number of images, 64 say, that the model draws in ``fit(None, y)`` to learn from
        (:mod:`diffusion_classifier.estimator.self_teaching`). 0 learns nothing without images.
    image_size : int or (int, int), optional
        Height and width to resize images to, in pixels. By default the model's own.
    resize : {"crop", "pad", "squash"}, default="crop"
        Crop the longer side, pad the shorter side, or change the aspect ratio.
    batch_size : "auto" or int, default="auto"
        Rows per network call. With a number, results on a CPU are bit-identical whatever the
        order and number of images; with "auto" they agree up to rounding.
    device : str, int, torch.device or list of them, default="auto"
        "auto" is CUDA, else MPS, else the CPU. Ignored for a Backend instance, except a list, such
        as ``["cuda:0", "cuda:1"]``: these share the images (:mod:`~.race.devices.engines`).
    dtype : str or torch.dtype, default="auto"
        "auto" is float16 on CUDA, else float32. Ignored for a Backend instance. Errors are float32.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. All images share the same draws.
    verbose : "auto", bool or int, default="auto"
        Progress bar: 0 never, 1 always, "auto" in terminals if the work takes more than a second.
    shortlist : None or BaseShortlist, default=None
        Proposes the classes that each image races, for many classes
        (:mod:`diffusion_classifier.shortlist`). None races all of them.
    memory : str, path-like or None, default=None
        Folder that keeps errors, so that none is computed twice, whatever the labels, pruner or
        weighting (:mod:`diffusion_classifier.store`). Other processes may share it. Not saved.
    callbacks : list of Callback, optional
        Objects told of each answer (:mod:`diffusion_classifier.callbacks`). Clones share them.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels, in the order of the output columns.
    prompts_ : dict
        The prompts of each label.
    backend_ : Backend
        The noise predictor; it shares its weights with ``backend``.
    sampler_ : Sampler
        Fitted copy of ``sampler``.
    pruner_ : Pruner
        Fitted copy of ``pruner``.
    weighting_ : Weighting
        Fitted copy of ``weighting``.
    calibrator_ : Calibrator or None
        Fitted copy of ``calibrator``, which knows the temperature.
    temperature_ : float
        The temperature. An image's own may be higher with ``calibrator="natural"``.
    shortlist_ : BaseShortlist or None
        Fitted copy of ``shortlist``.
    loss_ : str
        The ``loss`` at ``fit``. Later changes of parameters have no effect before the next ``fit``,
        except of ``batch_size``, ``memory``, ``verbose``, ``callbacks`` and lists of devices.
    resize_ : str
        The ``resize`` mode at ``fit``.
    image_size_ : tuple of (int, int) or None
        Height and width at ``fit``, in pixels; None for the model's own.
    seed_ : int
        Key of the draws.
    skipped_ : list of (int, str)
        Images that the latest prediction skipped, with ``on_error="skip"``: index and reason.
    n_features_in_ : int
        Number of columns; set if X is a table, a data frame or flattened images.
    feature_names_in_ : ndarray of shape (``n_features_in_``,)
        Column names; set if X is a data frame whose column names are all strings.

    References
    ----------
    A. C. Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", arXiv 2303.16203.

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
        backend: str | os.PathLike[str] | Backend | Pipeline | None = None,
        *,
        prompts: Prompts = None,
        sampler: SamplerName | Sampler | None = None,
        pruner: PrunerName | Pruner | None = None,
        weighting: WeightingName | Weighting = "uniform",
        loss: LossName = "l2",
        prompt_reduction: PromptReduction = "best",
        priors: ArrayLike | None = None,
        calibrator: CalibratorName | Calibrator | float | None = "natural",
        n_fit_images: int = 100,
        n_fit_samples: int = 0,
        image_size: int | tuple[int, int] | None = None,
        resize: ResizeMode = "crop",
        batch_size: BatchSizeOption = "auto",
        device: Devices = "auto",
        dtype: str | torch.dtype = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: Verbosity = "auto",
        shortlist: BaseShortlist | None = None,
        memory: str | os.PathLike[str] | None = None,
        callbacks: Sequence[Callback] | None = None,
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
        self.n_fit_samples = n_fit_samples
        self.image_size = image_size
        self.resize = resize
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        self.shortlist = shortlist
        self.memory = memory
        self.callbacks = callbacks

    @all_or_nothing
    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Set the classes, encode their prompts and fit the strategies that learn.

        Parameters
        ----------
        X : None, images of length n or a full ErrorTable
            None for zero-shot use. Images (see ``predict`` for their forms) are used only if a
            strategy learns from them, such as a calibrator. A *full* ErrorTable, with every
            prompt evaluated on every draw, can replace them.
        y : array-like of shape (n,)
            With ``X=None``, the class labels, each once. Otherwise the label of each image.

        Returns
        -------
        DiffusionClassifier
            The fitted estimator itself.

        Raises
        ------
        InputValueError
            If there are fewer than two classes, a label has no prompt, a parameter has a value that
            it does not allow, or, with ``X=None``, a label is repeated or a strategy needs images
            to learn.
        InputFileError
            If the backend's folder or Hub id cannot be loaded.

        Warns
        -----
        UserWarning
            If labels are numbers but the model reads text, prompts exceed the tokenizer's maximum
            length, the model is known not to know a word, or it reads several labels alike.
        """
        check_parameters(self)
        for name in ("shortlist_", "hub_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        pictures = PictureFormat.of(self.image_size, self.resize)
        backend = resolve_backend(self.backend, self.device, self.dtype)
        strategies = Strategies.resolve(
            backend,
            weighting=self.weighting,
            sampler=self.sampler,
            pruner=self.pruner,
            calibrator=self.calibrator,
        )
        check_loss(strategies.weighting, self.loss)
        check_variance(backend, self.loss)
        given, (X, y) = X, Inputs(self, backend, pictures).check(X, y)
        classes = find_classes(y)
        log_prior = read_log_prior(self.priors, len(classes))
        backend.fit(X, y)
        question = Question.of(classes, self.prompts, backend, self.prompt_reduction)
        self.classes_, self.prompts_ = classes, question.prompts
        self._condition = question.condition
        self.backend_, self._network = backend, backend.identity()
        self.weighting_, self.sampler_, self.pruner_, self.calibrator_ = strategies
        self.loss_, self.image_size_, self.resize_ = self.loss, pictures.image_size, pictures.resize
        seed = self.random_state
        seed = int(seed) if isinstance(seed, float) else seed  # such as 3.0
        self.seed_ = int(check_random_state(seed).randint(2**31 - 1))
        weights = torch.ones(backend.schedule.n_timesteps, dtype=torch.float64)
        unweighted = Scoring(weights, log_prior, question.class_of, question.reduction)
        self._scoring = unweighted  # used to record errors, before weights are learned
        n_images, n_samples = int(self.n_fit_images), int(self.n_fit_samples)
        learn_strategies(strategies, X, y, self._predictor(), n_images, self.seed_, n_samples)
        self._scoring = strategies.scoring(unweighted, backend, self.loss)
        shortlist = fit_shortlist(
            self.shortlist, given, X, y, self._predictor(), n_images, self.seed_
        )
        if shortlist is not None:
            self.shortlist_ = shortlist
        self._predictor().check()
        return self

    @property
    def temperature_(self) -> float:
        """Temperature of a race of ``max_draws`` draws: class losses over it are in nats."""
        return self._scoring.temperature(self.pruner_.max_draws)

    def encode(self, X: Any) -> Latents:
        """Encode images to latents, which can be reused for many predictions.

        Encoding depends on neither classes nor prompts, so it needs no ``fit``. Encode before
        cross-validation to decode and encode every image only once. A fitted classifier encodes
        with the network and image size of its ``fit``.

        Parameters
        ----------
        X : images of length n
            See ``predict``.

        Returns
        -------
        Latents
            Accepted as X by all methods of this classifier, and of any other with the same
            network and image size. scikit-learn can index it.

        Raises
        ------
        InputValueError
            If the backend reads numeric tables, or an image cannot be read.

        Examples
        --------
        >>> from diffusion_classifier import DiffusionClassifier
        >>> from diffusion_classifier.datasets import load_scenes
        >>> DiffusionClassifier().encode(load_scenes("test", n_samples=3).images)
        Latents(n_images=3, latent_shape=(4, 8, 8))
        """
        if hasattr(self, "backend_"):
            return self._inputs().encode(X)
        check_parameters(self)
        backend = resolve_backend(self.backend, self.device, self.dtype)
        return Inputs(self, backend, PictureFormat.of(self.image_size, self.resize)).encode(X)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backend: str | os.PathLike[str] | Backend | Pipeline | None = None,
        proposer: Any = None,
    ) -> Self:
        """Load a classifier that ``save`` wrote, without running code from the folder.

        Only the keys and types that ``save`` writes are accepted, and no option reaches the loader
        of the network apart from its place, dtype and device. The checksums in the folder detect
        damage. They do not authenticate: whoever edits a folder can compute them again, choose
        other prompts or classes, and name another local folder or Hub id to load weights from.

        Parameters
        ----------
        folder : str or path-like
            Its files must be regular files, not symbolic links.
        backend : None, str, path-like or Backend, default=None
            The network. Needed if it was created in memory or has moved; None loads it from its
            saved location.
        proposer : classifier, optional
            Needed if the classifier has a ``Shortlist``, whose proposer is not saved.

        Returns
        -------
        DiffusionClassifier
            Fitted; it predicts what the saved classifier predicted.

        Raises
        ------
        MissingFileError
            If a saved file is missing.
        DamagedFileError
            If a file was edited or damaged, is not as ``save`` writes it, or has a format version
            that is not supported. The message names the entry.
        InputFileError
            If a file is a symbolic link, a named pipe or a device, or the network cannot be loaded.
        InputValueError
            If the network differs: its configuration or, without ``backend``, its name or revision.

        Examples
        --------
        >>> import tempfile
        >>> from diffusion_classifier import DiffusionClassifier
        >>> folder = tempfile.mkdtemp()
        >>> DiffusionClassifier(random_state=0).fit(None, ["one", "two"]).save(folder)
        >>> DiffusionClassifier.load(folder).classes_.tolist()
        ['one', 'two']
        """
        saved = read_classifier(folder, cls().get_params(deep=False), backend, proposer)
        clf = cls(**saved.parameters)
        for name, value in saved.fitted.items():
            setattr(clf, name, value)
        clf._network = clf.backend_.identity()
        with refusing(folder):
            check_parameters(clf)
            clf._predictor().check()
        return clf
