r"""Image-text matching: find the caption of an image, or the image for a caption.

A diffusion model scores any pair of an image x and a text c:

    score(x, c) = -E_{t, eps}[ w(t) err(x, c) ]  ~  log p(x | c) + const(x)

The scores of one image for several captions can be compared directly. The scores of several images
for one caption cannot, because some images are easier to denoise than others whatever the caption.
Subtracting the score of the *unconditional* (empty) prompt (Krojer et al., "Are Diffusion Models
Vision-And-Language Reasoners?", NeurIPS 2023, arXiv 2305.16397) removes this effect and leaves an
estimate of ``log p(x | c) - log p(x)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends.resolve import resolve_backend
from .classifier import DiffusionClassifier
from .errors import InputTypeError, InputValueError
from .pruners.base import NoPruning
from .utils.display import short_repr
from .utils.validation import check_option

NORMALIZATIONS = (None, "unconditional")
OPTIONS = (
    "sampler", "weighting", "loss", "image_size", "resize", "batch_size", "device", "dtype",
    "random_state", "memory", "verbose",
)  # fmt: skip


def match_scores(
    images: Any,
    captions: Any,
    backend: Any = None,
    *,
    normalize: str | None = None,
    max_draws: int = 200,
    **options: Any,
) -> NDArray[np.float64]:
    """Score how well each image matches each caption; higher is better.

    Every image-caption pair is evaluated on the same draws (timestep, noise), without pruning.

    Parameters
    ----------
    images : images of length n, or Latents
        Images, as for ``DiffusionClassifier.predict``.
    captions : sequence of str of length m
        Prompts, used without a template. A repeated caption is evaluated only once.
    backend : None, str, path-like or Backend, default=None
        The noise predictor, as for ``DiffusionClassifier``; None is the embedded model.
    normalize : {None, "unconditional"}, default=None
        "unconditional" subtracts each image's score for the unconditional prompt. Use it to
        compare several images for one caption. It costs as much as one more caption.
    max_draws : int, default=200
        Draws per pair. The cost is n * m * max_draws network evaluations.
    **options
        ``sampler``, ``weighting``, ``loss``, ``image_size``, ``resize``, ``batch_size``,
        ``device``, ``dtype``, ``random_state``, ``memory`` and ``verbose`` of
        ``DiffusionClassifier``.

    Returns
    -------
    ndarray of shape (n, m), dtype float64
        Row i, column k is the score of image i and caption k, ``-mean_j w(t_j) / q_j err_j`` over
        draws j with weight w(t_j), proposal density q_j and error err_j, summed over the latent's
        dimensions. With ``weighting="likelihood"``, scores are in nats and normalised scores
        estimate ``log p(x | c) - log p(x)``.

    Raises
    ------
    InputValueError
        If there are no captions, ``normalize`` is unknown, a strategy has to learn from labels,
        or the backend has no unconditional prompt although ``normalize`` or a single caption
        requires it.
    InputTypeError
        If a caption is not a string, or an option is not one of those above.

    References
    ----------
    B. Krojer, E. Poole-Dayan, V. Voleti, C. Pal and S. Reddy, "Are Diffusion Models
    Vision-And-Language Reasoners?", NeurIPS 2023, arXiv 2305.16397.

    Examples
    --------
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.matching import match_scores
    >>> scenes = load_scenes("test", n_samples=3)
    >>> captions = [f"a {color} {digit}" for color, digit in zip(scenes.color, scenes.digit)]
    >>> scores = match_scores(
    ...     scenes.images, captions, normalize="unconditional", max_draws=20, random_state=0
    ... )
    >>> scores.argmax(0), scores.argmax(1)
    (array([0, 1, 2]), array([0, 1, 2]))
    """
    check_option("normalize", normalize, NORMALIZATIONS)
    for name in options:
        if name not in OPTIONS:
            raise InputTypeError(
                f"match_scores takes no option {name!r}, only {', '.join(OPTIONS)}."
            )
    captions = _check_captions(captions)
    prompts = list(dict.fromkeys(captions))
    place = (options.pop(name, "auto") for name in ("device", "dtype"))
    backend = resolve_backend(backend, *place)
    nothing = backend.unconditional_prompt
    # A classifier needs at least two classes, so add the unconditional prompt to a single caption.
    if (normalize or len(prompts) == 1) and nothing not in prompts:
        if nothing is None:
            raise InputValueError(
                f"{short_repr(backend)} has no unconditional input: leave out normalize, and give "
                "at least two different captions."
            )
        prompts.append(nothing)
    clf = DiffusionClassifier(
        backend,
        prompts={prompt: prompt for prompt in prompts},  # a dict is used without a template
        pruner=NoPruning(max_draws),
        **options,
    ).fit(None, prompts)
    table = clf.errors(images, full=True)
    weights = table.scoring.weights.numpy()[table.timesteps] / table.density
    scores = -(table.errors * weights).mean(2)  # columns in the order of table.prompts
    column = {prompt: number for number, prompt in enumerate(table.prompts)}
    chosen = scores[:, [column[caption] for caption in captions]]
    return chosen - scores[:, [column[nothing]]] if normalize else chosen


def _check_captions(captions: Any) -> list[str]:
    """Return captions as a list of plain strings."""
    if isinstance(captions, str | bytes):
        raise InputTypeError(f"captions={captions!r} is one string; give a list of strings.")
    found = np.asarray(captions, dtype=object).tolist()
    if not isinstance(found, list):
        raise InputTypeError(
            f"captions is of type {type(captions).__name__}; give a list of strings."
        )
    if not found:
        raise InputValueError("captions is empty; give at least one string.")
    for i, caption in enumerate(found):
        if not isinstance(caption, str):
            raise InputTypeError(
                f"captions[{i}] is of type {type(caption).__name__}; give a string."
            )
    return [str(caption) for caption in found]
