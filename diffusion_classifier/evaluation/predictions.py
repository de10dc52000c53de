"""Predictions as records: one plain dict for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ..classifier import DiffusionClassifier
from ..errors import AllSkippedError, InputTypeError
from ..estimator.inputs import OnError
from ..records.table import ErrorTable
from ..utils.constraints import Integers, check
from ..utils.display import short_repr
from ..utils.plain import finite

FIELDS = (
    "label", "probability", "labels", "probabilities", "n_evaluations", "resolved", "runner_up",
    "margin", "standard_error", "n_draws", "error",
)  # fmt: skip
_KINDS = {
    "n_evaluations": "Int64", "n_draws": "Int64", "rank": "Int64", "resolved": "boolean",
    "probability": "float64", "margin": "float64", "standard_error": "float64",
    "log_loss": "float64", "brier": "float64",
}  # fmt: skip


def predictions(
    clf: DiffusionClassifier, X: Any, *, top: int = 5, on_error: OnError = "raise"
) -> list[dict[str, Any]]:
    """Predict images, and return all that is known of each answer.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted.
    X : images of length n or an ErrorTable
        See ``DiffusionClassifier.predict``.
    top : int, default=5
        Number of classes in ``labels`` and ``probabilities``, the most probable first.
    on_error : {"raise", "skip"}, default="raise"
        As in ``DiffusionClassifier.predict``.

    Returns
    -------
    list of dict, of length n
        ``label`` and its ``probability``; ``labels`` and ``probabilities`` of the ``top`` most
        probable classes; ``n_evaluations``, the network rows that it took; and how the race ended,
        as in ``ErrorTable.certificate``: ``resolved``, ``runner_up``, ``margin``,
        ``standard_error`` (None after a single round), ``n_draws``. ``error`` is None. All values
        are Python's own, so that ``pandas.DataFrame(records)`` and ``json`` read them. Of an image
        that was skipped, all are None but ``error``, the reason.

    Raises
    ------
    InputTypeError
        If ``clf`` is not a DiffusionClassifier.
    InputError, NetworkError
        As ``DiffusionClassifier.errors`` raises them, with its attribute ``partial``.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.pruners import NoPruning
    >>> clf = DiffusionClassifier(pruner=NoPruning(max_draws=8), random_state=0)
    >>> clf = clf.fit(None, ["red digit", "green digit", "blue digit"])
    >>> (record,) = predictions(clf, load_scenes("test", n_samples=1).images, top=2)
    >>> record["n_evaluations"], len(record["labels"]), record["error"]
    (24, 2, None)
    """
    check_classifier(clf)
    check("top", top, Integers(1))
    try:
        table = X if isinstance(X, ErrorTable) else clf.errors(X, on_error=on_error)
    except AllSkippedError as error:
        return [no_prediction(reason) for _, reason in error.skipped]
    return read_records(clf, table, clf.predict_proba(table, on_error=on_error), top)


def read_records(
    clf: DiffusionClassifier, table: ErrorTable, proba: NDArray[np.float64], top: int
) -> list[dict[str, Any]]:
    """Return the records of a table's images, whose probabilities [N, K] are known."""
    skipped = dict(table.skipped)
    certificate = table.certificate
    records = []
    for image, row in enumerate(proba):
        if image in skipped:
            records.append(no_prediction(skipped[image]))
            continue
        best = np.argsort(-row, kind="stable")[:top]
        race = certificate[image]
        records.append(
            {
                "label": clf.classes_[best].tolist()[0],
                "probability": float(row[best[0]]),
                "labels": clf.classes_[best].tolist(),
                "probabilities": row[best].tolist(),
                "n_evaluations": int(table.n_evaluations[image]),
                "resolved": bool(race.resolved),
                "runner_up": np.asarray(race.runner_up).tolist(),
                "margin": finite(float(race.margin)),
                "standard_error": finite(float(race.standard_error)),
                "n_draws": int(race.n_draws),
                "error": None,
            }
        )
    return records


def as_frame(records: list[dict[str, Any]]) -> Any:
    """Return records as a pandas data frame, one row per image.

    Parameters
    ----------
    records : list of dict
        Those of :func:`predictions`, or the ``records`` of an Evaluation.

    Returns
    -------
    pandas.DataFrame
        A column for each key. Counts and truth values have pandas' nullable types, so that they
        stay what they are beside skipped images.

    Raises
    ------
    ImportError
        If pandas is not installed.

    Examples
    --------
    >>> frame = as_frame([no_prediction("image 0 is damaged.")])
    >>> frame["n_evaluations"].dtype, frame["error"][0]
    (Int64Dtype(), 'image 0 is damaged.')
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "data frames need pandas; install it with pip install pandas, or use the records as "
            "they are."
        ) from error
    frame = pandas.DataFrame(records, columns=None if records else list(FIELDS))
    kinds = {name: kind for name, kind in _KINDS.items() if name in frame}
    return frame.astype(kinds)


def check_classifier(clf: Any) -> None:
    """Raise unless this is a DiffusionClassifier that was fitted."""
    if not isinstance(clf, DiffusionClassifier):
        raise InputTypeError(f"clf must be a DiffusionClassifier, not {short_repr(clf)}.")
    check_is_fitted(clf)


def no_prediction(reason: str) -> dict[str, Any]:
    """Return the record of an image without an answer.

    Parameters
    ----------
    reason : str
        Why there is none.

    Returns
    -------
    dict
        With the keys of ``FIELDS``.

    Examples
    --------
    >>> no_prediction("image 0 is damaged.")["error"]
    'image 0 is damaged.'
    """
    return {**dict.fromkeys(FIELDS), "error": reason}
