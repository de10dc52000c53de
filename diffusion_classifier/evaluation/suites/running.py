"""A suite, from its name to a figure beside the published one.

``prepare_suite`` fits the classifier and reads the images, ``evaluate_suite`` also answers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
from sklearn.base import clone

from ...classifier import DiffusionClassifier
from ...errors import InputTypeError, InputValueError
from ...estimator.classes.prompts import make_prompts
from ...pruners import NoPruning
from ...utils.display import short_repr
from ...utils.validation import check_positive_integer
from ..measuring import evaluate
from .names import Names, read_class_names, read_templates
from .prepared import Prepared
from .reading import SuiteImages, balanced, check_columns, read_suite_images, rows_of
from .result import MatchingResult, SuiteResult
from .suite import MATCHING, Suite, load_suite


def prepare_suite(
    model: Any,
    suite: str | Suite,
    data: Any = None,
    *,
    published: bool = False,
    limit: int | None = None,
    seed: int = 0,
    memory: Any = None,
    templates: Names | None = None,
    classnames: Names | None = None,
) -> Prepared:
    """Read a suite's images and fit a classifier for them; see :func:`evaluate_suite`."""
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    if limit is not None:
        limit = check_positive_integer("limit", limit)
    elif published:
        limit = suite.published.n_images
    clf = _classifier(model, suite, published, seed, memory)
    if suite.task == MATCHING:
        if templates is not None or classnames is not None:
            raise InputValueError(f"suite {suite.name!r} has captions, and so no templates.")
        rows = rows_of(suite, data)
        check_columns(suite, rows, (*suite.images, *suite.labels))
        if limit is not None and limit < len(rows):
            rows = rows.select(balanced(np.zeros(len(rows)), limit, seed))
        draws = NoPruning(suite.published.stages[-1])
        probe = clone(clf).set_params(pruner=draws).fit(None, list(suite.labels))
        cost = probe.estimate_cost(2 * len(rows))
        return Prepared(suite, clf, rows, published, limit, seed, cost)
    keys = (suite.name, *suite.aliases)
    names = None if classnames is None else read_class_names(classnames, keys)
    found = read_suite_images(suite, data, names)
    chosen = found.chosen(balanced(found.labels, limit, seed))
    clf.set_params(prompts=_prompts(suite, found.classes, templates, keys))
    clf.fit(None, found.classes)
    expected = clf.estimate_cost(len(chosen.labels))
    return Prepared(suite, clf, chosen, published, limit, seed, expected)


def evaluate_suite(
    model: Any,
    suite: str | Suite,
    data: Any = None,
    *,
    published: bool = False,
    limit: int | None = None,
    seed: int = 0,
    memory: Any = None,
    templates: Names | None = None,
    classnames: Names | None = None,
    tell: Callable[[str], Any] | None = print,
) -> SuiteResult | MatchingResult:
    """Evaluate a model on a published experiment, and put its figure beside the published one.

    Parameters
    ----------
    model : None, str, path-like, Backend or DiffusionClassifier
        None is the embedded model. A classifier keeps its parameters, but for prompts,
        ``random_state`` and ``memory``, and with ``published`` the parameters of the search.
    suite : str or Suite
        A name of :func:`suite_names`, the path of a YAML file, or what :func:`load_suite` returns.
    data : None, str, path-like or datasets.Dataset
        None: from the Hugging Face Hub. A folder holds one sub-folder per class, or a data set
        that ``save_to_disk`` wrote.
    published : bool, default=False
        Search as the paper does: its timesteps, cuts, loss and image size. By default the
        classifier's own race.
    limit : int, optional
        Most images, with the same number of each class, but for one. By default all of them, or
        with ``published`` as many as in the paper.
    seed : int, default=0
        Of the draws and the sample.
    memory : str or path-like, optional
        Folder that keeps what was computed; the same call then resumes.
    templates, classnames : str or path-like, optional
        Files in the JSON form of CLIP_benchmark, instead of the suite's own.
    tell : callable or None, default=print
        Called with the plan before the start, and with the result.

    Returns
    -------
    SuiteResult or MatchingResult

    Raises
    ------
    InputError
        If the suite, the data, a file or the model cannot be read.
    NetworkError
        If the network fails.

    References
    ----------
    A. C. Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, arXiv
    2303.16203. Winoground: T. Thrush et al., CVPR 2022, arXiv 2204.03162.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.evaluation.suites import evaluate_suite
    >>> scenes, root = load_scenes("test", n_samples=6), pathlib.Path(tempfile.mkdtemp())
    >>> for number, (image, color) in enumerate(zip(scenes.images, scenes.color)):
    ...     (root / color).mkdir(exist_ok=True)
    ...     Image.fromarray(image).save(root / color / f"{number}.png")
    >>> found = evaluate_suite(None, "stl10", root, tell=None)
    >>> found.evaluation.n, found.published.figure
    (6, 95.4)
    """
    prepared = prepare_suite(
        model, suite, data, published=published, limit=limit, seed=seed, memory=memory,
        templates=templates, classnames=classnames,
    )  # fmt: skip
    if tell is not None:
        tell(prepared.plan())
    found: SuiteResult | MatchingResult
    if prepared.suite.task == MATCHING:
        found = MatchingResult(prepared, list(prepared.matches()))
    else:
        images: SuiteImages = prepared.data
        found = SuiteResult(prepared, evaluate(prepared.classifier, images.images, images.labels))
    if tell is not None:
        tell(found.summary())
    return found


def _classifier(
    model: Any, suite: Suite, published: bool, seed: int, memory: Any
) -> DiffusionClassifier:
    """Return an unfitted classifier that searches as asked."""
    if isinstance(model, DiffusionClassifier):
        clf = clone(model)
    else:
        clf = DiffusionClassifier(model, verbose=0)
    if not isinstance(published, bool):
        raise InputTypeError(f"published={short_repr(published)} must be True or False.")
    clf.set_params(random_state=seed, memory=memory)
    if published:
        paper = suite.published
        size = None if clf.backend is None else paper.image_size  # the embedded model has its own
        clf.set_params(
            sampler=paper.sampler(), pruner=paper.pruner(), loss=paper.loss, weighting="uniform",
            image_size=size, resize="crop", shortlist=None,
        )  # fmt: skip
    return clf


def _prompts(
    suite: Suite, classes: list[str], file: Names | None, keys: tuple[str, ...]
) -> dict[str, list[str]]:
    """Return the prompts of each class; articles are chosen in the suite's own templates only."""
    if file is not None:
        templates = read_templates(file, keys)
        made = make_prompts(classes, templates, "")
    else:
        parts = [make_prompts(classes, None, template) for template in suite.templates]
        made = [list(chain(*column)) for column in zip(*parts, strict=True)]
    return dict(zip(classes, made, strict=True))
