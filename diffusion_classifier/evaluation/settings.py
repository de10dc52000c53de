"""What an evaluation says of its classifier, in types that JSON supports."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .._version import __version__
from ..classifier import DiffusionClassifier

# What changes no answer: how fast, how loud and from which folder.
_NOT_SHOWN = ("verbose", "memory", "callbacks")


def settings_of(clf: DiffusionClassifier) -> dict[str, Any]:
    """Return the parameters of a fitted classifier and what it learned of them.

    Parameters
    ----------
    clf : DiffusionClassifier

    Returns
    -------
    dict
        Parameters, strategies as they are printed; ``prompts`` of each label as a list of pairs;
        ``seed``, ``temperature`` and ``version``.

    Examples
    --------
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["three", "five"])
    >>> settings_of(clf)["prompts"]
    [['five', ['a five']], ['three', ['a three']]]
    """
    parameters = {
        name: _plain(value)
        for name, value in clf.get_params(deep=False).items()
        if name not in _NOT_SHOWN
    }
    return {
        **parameters,
        "prompts": [[_plain(label), _plain(prompts)] for label, prompts in clf.prompts_.items()],
        "sampler": repr(clf.sampler_),
        "pruner": repr(clf.pruner_),
        "seed": clf.seed_,
        "temperature": float(clf.temperature_),
        "version": __version__,
    }


def identity_of(clf: DiffusionClassifier) -> dict[str, Any]:
    """Return what identifies the network of a fitted classifier.

    Parameters
    ----------
    clf : DiffusionClassifier

    Returns
    -------
    dict

    Examples
    --------
    >>> clf = DiffusionClassifier(random_state=0).fit(None, ["three", "five"])
    >>> identity_of(clf)["resize"]
    'crop'
    """
    made_by = clf._predictor().setup.made_by or {}
    return {name: _plain(value) for name, value in made_by.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON would read it again, or as it is printed."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return " ".join(repr(value).split())
