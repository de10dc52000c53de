r"""DiffusionClassifier: the scikit-learn estimator.

    log p(x | c) ~ -E_{t, eps}[ w(t) ||eps - eps_hat(alpha_t x + sigma_t eps, t, c)||^2 ]
    p(c | x)     = softmax_c( log p(x | c) + log prior(c) )

The class whose prompt predicts the noise best wins (arXiv 2303.16203). ``fit`` makes the values
that predictions need; :mod:`diffusion_classifier.estimator.predicting` leads X through the rooms.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from .backends.base import Backend
from .backends.resolve import resolve_backend
from .estimator.fitted import FittedClassifier
from .estimator.fitting import learn_strategies
from .estimator.inputs import Inputs
from .estimator.labels import find_classes, warn_of_numbers
from .estimator.prompts import make_prompts
from .estimator.saving import read_classifier
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
from .scoring.class_losses import LOSS_NAMES, PROMPT_REDUCTIONS, check_loss, read_log_prior
from .strategies import Strategies
from .utils.display import DocumentedMixin
from .utils.validation import all_or_nothing, check_option


class DiffusionClassifier(DocumentedMixin, FittedClassifier):
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
        How labels become prompts: a template such as ``"a photo of a {}"``, a list of templates,
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
        A copy of ``sampler``, with what it learned.
    pruner_ : Pruner
        A copy of ``pruner``, with what it learned.
    weighting_ : Weighting
        A copy of ``weighting``, with what it learned.
    calibrator_ : Calibrator or None
        Holds the temperature that was learned.
    loss_ : str
        As ``fit`` saw it; only ``batch_size`` and ``verbose`` take effect without a new ``fit``.
    resize_ : str
        As ``fit`` saw it.
    image_size_ : tuple of (int, int) or None
        Height and width that ``fit`` saw, in pixels; None if they are the model's own.
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
        backend: str | os.PathLike[str] | Backend | None = None,
        *,
        prompts: str | Sequence[str] | Mapping[Any, str | Sequence[str]] | None = None,
        sampler: SamplerName | Sampler | None = None,
        pruner: PrunerName | Pruner | None = None,
        weighting: WeightingName | Weighting = "uniform",
        loss: LossName = "l2",
        prompt_reduction: PromptReduction = "best",
        priors: ArrayLike | None = None,
        calibrator: CalibratorName | Calibrator | None = None,
        n_fit_images: int = 100,
        image_size: int | tuple[int, int] | None = None,
        resize: ResizeMode = "crop",
        batch_size: BatchSizeOption = "auto",
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: Verbosity = "auto",
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
    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Name the classes, encode their prompts and let strategies learn.

        Parameters
        ----------
        X : None, images of length n or a full ErrorTable
            None for zero-shot use. Images are looked at only if a strategy learns from them, as
            a calibrator does (:mod:`diffusion_classifier.estimator.fitting`); see ``predict`` for
            their forms.
        y : array-like of shape (n,)
            With ``X=None``, the labels of the classes, each once. Else the label of each image.

        Returns
        -------
        DiffusionClassifier
            The fitted estimator itself.

        Raises
        ------
        InputValueError
            If there are fewer than two classes, a label has no prompt, a parameter is not one of
            the known values, or with ``X=None`` a label comes twice or a strategy must learn.
        InputFileError
            If the backend's folder or Hub id cannot be loaded.

        Warns
        -----
        UserWarning
            If labels are numbers but the model reads text, a prompt is longer than its
            tokenizer takes, or the embedded model does not know a word.
        """
        check_option("prompt_reduction", self.prompt_reduction, PROMPT_REDUCTIONS)
        check_option("loss", self.loss, LOSS_NAMES)
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
        X, y = Inputs(self, backend, pictures).check(X, y)
        classes = find_classes(y)
        prompts = make_prompts(classes, self.prompts, backend.default_template)
        if backend.text_conditional and not isinstance(self.prompts, dict):
            warn_of_numbers(classes, prompts[0][0])
        log_prior = read_log_prior(self.priors, len(classes))
        backend.fit(X, y)
        class_of = np.repeat(np.arange(len(classes)), [len(p) for p in prompts])
        self.classes_ = classes
        self.prompts_ = dict(zip(classes.tolist(), prompts, strict=True))
        with torch.inference_mode():
            labels = classes[class_of].tolist()
            flat_prompts = [prompt for of_class in prompts for prompt in of_class]
            self._condition = backend.encode_classes(labels, flat_prompts)
        self.backend_ = backend
        self.weighting_, self.sampler_, self.pruner_, self.calibrator_ = strategies
        self.loss_, self.image_size_, self.resize_ = self.loss, pictures.image_size, pictures.resize
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        weights = torch.ones(backend.schedule.n_timesteps, dtype=torch.float64)
        unweighted = Scoring(weights, log_prior, torch.as_tensor(class_of), self.prompt_reduction)
        self._scoring = unweighted  # as errors are recorded, before weights are learned
        learn_strategies(strategies, X, y, self._predictor(), self.n_fit_images, self.seed_)
        self._scoring = strategies.scoring(unweighted, backend)
        self._predictor().check()
        return self

    def encode(self, X: Any) -> Latents:
        """Encode images once, to ask many questions about them.

        Classes and prompts play no part, so this needs no ``fit``: encode before cross-validation,
        and no image is decoded or encoded twice. A fitted classifier uses the network and picture
        size that ``fit`` saw.

        Parameters
        ----------
        X : images of length n
            As for ``predict``.

        Returns
        -------
        Latents
            Accepted in place of X by every method, of this classifier or of any other with the
            same network and picture size. scikit-learn can slice it.

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
        backend = resolve_backend(self.backend, self.device, self.dtype)
        return Inputs(self, backend, PictureFormat.of(self.image_size, self.resize)).encode(X)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        backend: str | os.PathLike[str] | Backend | None = None,
    ) -> Self:
        """Read a classifier that ``save`` wrote; no code from the folder is run.

        Parameters
        ----------
        folder : str or path-like
        backend : None, str, path-like or Backend, default=None
            The network, if it was made in memory or has moved. None: loaded from where it was.

        Returns
        -------
        DiffusionClassifier
            Fitted; its answers are those of the saved one.

        Raises
        ------
        MissingFileError
            If a file of the save is missing.
        InputValueError
            If a file was edited, the format is of another version, or the network is another one:
            its configuration differs or, without ``backend``, its name or revision.
        """
        saved = read_classifier(folder, backend)
        clf = cls(**saved.parameters)
        for name, value in saved.fitted.items():
            setattr(clf, name, value)
        return clf
