"""From labelled images to an Evaluation: races in blocks, records with scores.

Errors are held for one block of images at a time, and afterwards only those of the most confident
wrong answers, which a reader of the evaluation wants to look at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..classifier import DiffusionClassifier
from ..errors import AllSkippedError, InputValueError
from ..estimator.classes.labels import read_labels
from ..estimator.inputs import OnError
from ..images import ImageSequence, Latents, read_images
from ..images.files import list_images
from ..records.table import ErrorTable
from ..utils.constraints import Integers, check
from ..utils.display import short_repr
from .evaluation import SCORES, Evaluation
from .metrics import image_scores
from .predictions import check_classifier, no_prediction, read_records
from .settings import identity_of, settings_of

BLOCK = 256  # images whose errors are held at once
MOST_RACES = 24  # wrong answers whose errors are kept


def evaluate(
    clf: DiffusionClassifier,
    X: Any,
    y: ArrayLike,
    *,
    on_error: OnError = "raise",
    top: int = 5,
    names: Sequence[Any] | None = None,
) -> Evaluation:
    """Predict labelled images, and measure the answers.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted.
    X : images of length n or an ErrorTable
        See ``DiffusionClassifier.predict``. Images are raced 256 at a time, so that memory does
        not grow with n.
    y : array-like of shape (n,)
        True labels, each one of ``clf.classes_``.
    on_error : {"raise", "skip"}, default="raise"
        As in ``DiffusionClassifier.predict``.
    top : int, default=5
        Number of classes in the records, and for ``top_accuracy``; at most the number of classes.
    names : sequence of length n, optional
        Names of the images, by which :func:`compare` pairs them. By default the paths in X, or
        the numbers from 0.

    Returns
    -------
    Evaluation
        Its ``seconds`` are None if X is an ErrorTable or the classifier has a ``memory``.

    Raises
    ------
    InputTypeError
        If ``clf`` is not a DiffusionClassifier.
    InputValueError
        If y does not fit X or the classes, or every image is skipped.
    InputError, NetworkError
        As ``DiffusionClassifier.errors`` raises them. Interrupted in the first 256 images, the
        exception has the errors found so far as its attribute ``partial``, an ErrorTable;
        ``evaluate(clf, partial, y[:len(partial)], on_error="skip")`` evaluates it.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.evaluation import evaluate
    >>> scenes = load_scenes("test", n_samples=4)
    >>> clf = DiffusionClassifier(prompts="a {} digit", random_state=0)
    >>> clf = clf.fit(None, ["red", "green", "blue", "yellow", "purple", "white", "black"])
    >>> found = evaluate(clf, scenes.images, scenes.color, top=2)
    >>> print(found.summary().splitlines()[1])
    accuracy               100.0 % (51.0 to 100.0)
    """
    check_classifier(clf)
    check("top", top, Integers(1))
    top = min(int(top), len(clf.classes_))
    images = _images(clf, X, on_error)
    labels, columns = _columns(clf, y, len(images))
    called = _names(X, len(images)) if names is None else list(names)
    if len(called) != len(images):
        raise InputValueError(f"names holds {len(called)} names, but X {len(images)} images.")
    records: list[dict[str, Any]] = []
    races: dict[int, ErrorTable] = {}
    seconds = 0.0
    for start, block in _blocks(images):
        began = time.perf_counter()
        answers, table = _answer(clf, block, columns[start : start + len(block)], on_error, top)
        seconds += time.perf_counter() - began
        for place, answer in enumerate(answers, start):
            records.append({"image": called[place], "true": labels[place], **answer})
            if table is not None and (answer["rank"] or 1) > 1:
                races[place] = table[place - start]
        for place in sorted(races, key=lambda i: -records[i]["probability"])[MOST_RACES:]:
            del races[place]
    if all(record["error"] for record in records):
        raise AllSkippedError(
            f"no image can be read; the first: {records[0]['error']}",
            [(place, record["error"]) for place, record in enumerate(records)],
        )
    return Evaluation(
        records=records,
        classes=clf.classes_.tolist(),
        settings=settings_of(clf),
        network=identity_of(clf),
        top=top,
        # Errors that are looked up take no time: it would say nothing of the network.
        seconds=None if isinstance(X, ErrorTable) or clf.memory is not None else seconds,
        races=races,
    )


def _answer(
    clf: DiffusionClassifier, X: Any, columns: NDArray[np.int64], on_error: OnError, top: int
) -> tuple[list[dict[str, Any]], ErrorTable | None]:
    """Return the records of a block of images with their scores, and their errors."""
    nothing = dict.fromkeys(SCORES)
    try:
        table = X if isinstance(X, ErrorTable) else clf.errors(X, on_error=on_error)
    except AllSkippedError as error:
        return [no_prediction(reason) | nothing for _, reason in error.skipped], None
    log_proba = clf.predict_log_proba(table, on_error=on_error)
    records = read_records(clf, table, np.exp(log_proba), top)
    scores = zip(*(column.tolist() for column in image_scores(log_proba, columns)), strict=True)
    for record, (log_loss, brier, rank) in zip(records, scores, strict=True):
        found = {"rank": rank, "log_loss": log_loss, "brier": brier}
        record.update(nothing if record["error"] else found)
    return records, table


def _images(clf: DiffusionClassifier, X: Any, on_error: str) -> Any:
    """Return X as what has a length and slices, if pictures can be read block by block."""
    is_table = hasattr(X, "columns") or getattr(X, "ndim", 0) == 2
    if isinstance(X, ErrorTable | Latents) or clf.backend_.input_kind == "array" or is_table:
        return X
    images = read_images(X, check=on_error == "raise")
    if on_error == "raise":
        images.check_files()
    return images


def _blocks(images: Any) -> Iterator[tuple[int, Any]]:
    """Yield blocks of images, each with the place of its first."""
    if not isinstance(images, ImageSequence | ErrorTable | Latents):
        yield 0, images
        return
    for start in range(0, len(images), BLOCK):
        yield start, images[start : start + BLOCK]


def _columns(clf: DiffusionClassifier, y: Any, n: int) -> tuple[list[Any], NDArray[np.int64]]:
    """Return true labels, and the column of each."""
    labels = read_labels(y, unique=False).tolist()
    if len(labels) != n:
        raise InputValueError(
            f"y holds {len(labels)} labels, but X {n} images; give one label per image."
        )
    place = {label: column for column, label in enumerate(clf.classes_.tolist())}
    for number, label in enumerate(labels):
        if label not in place:
            raise InputValueError(
                f"y[{number}]={short_repr(label)} is no class of this classifier, whose classes "
                f"are {short_repr(clf.classes_.tolist())}; leave such images out, or fit with it."
            )
    return labels, np.array([place[label] for label in labels], dtype=np.int64)


def _names(X: Any, n: int) -> list[Any]:
    """Return the paths in X, or numbers."""
    if isinstance(X, str | os.PathLike):
        return [str(path) for path in list_images(X)]
    if isinstance(X, list | tuple) and all(isinstance(item, str | os.PathLike) for item in X):
        return [str(path) for path in X]
    return list(range(n))
