"""Checks of the labels passed to ``fit``: can they be read, and told apart?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ...backends.base import Conditioning
from ...errors import InputValueError
from ...utils.display import short_repr


def read_labels(y: Any, *, unique: bool) -> NDArray:
    """Check labels and return them as a one-dimensional array.

    Parameters
    ----------
    y : array-like of shape (n,)
    unique : bool
        Whether to require distinct labels, as in ``fit(None, labels)``.

    Raises
    ------
    InputValueError
        If ``y`` is None or no array-like, is not one-dimensional, holds continuous numbers or
        several types, a label is missing (None, NaN, NaT, pandas.NA or masked), or a label is
        repeated although ``unique``.
    """
    if y is None:
        raise InputValueError(
            "fit requires y to be passed, but the target y is None; for zero-shot use, call "
            "fit(None, labels)."
        )
    if isinstance(y, str | bytes | set | dict):
        raise InputValueError(f"y={short_repr(y)} must be a list or array of labels.")
    try:
        _check_each(y)
        labels = column_or_1d(np.asarray(y), warn=True)
        names, counts = np.unique(labels, return_counts=True)
        if len(labels):
            with warnings.catch_warnings():
                if unique:  # scikit-learn takes as many classes as labels for regression
                    warnings.simplefilter("ignore", UserWarning)
                check_classification_targets(labels)
    except InputValueError:
        raise
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputValueError(f"y={short_repr(y)} cannot be read as labels: {reason}") from error
    if unique and (counts > 1).any():
        raise InputValueError(
            f"labels {short_repr(names[counts > 1].tolist())} are given more than once; pass "
            "each class to fit(None, labels) once."
        )
    return labels


def _check_each(y: Any) -> None:
    """Raise an InputValueError if a label is missing or of another type than the first."""
    mask = np.ma.getmaskarray(y).ravel() if isinstance(y, np.ma.MaskedArray) else np.zeros(0, bool)
    if mask.any():
        raise InputValueError(
            f"labels[{mask.argmax()}] is masked; drop the images and labels that are masked."
        )
    if isinstance(y, np.ndarray) and y.dtype.kind in "biuU":
        return
    first: tuple[int, Any] | None = None
    items = y if isinstance(y, np.ndarray) else np.asarray(y, dtype=object)
    for i, item in enumerate(items.ravel()):
        label = plain_value(item)
        if _is_missing(label):
            raise InputValueError(
                f"labels[{i}]={short_repr(label)} is missing; drop that image or give its label."
            )
        if first is None:
            first = i, label
        elif type(label) is not type(first[1]) and _kind(label) != _kind(first[1]):
            raise InputValueError(
                f"labels[{first[0]}]={short_repr(first[1])} is {_kind(first[1])} and "
                f"labels[{i}]={short_repr(label)} {_kind(label)}; labels must all be of one type."
            )


def _is_missing(label: Any) -> bool:
    """Whether a label is None, NaN, NaT or pandas.NA."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, Number | np.generic) and bool(label != label)


def _kind(label: Any) -> str:
    """Return the kind of a label, with its article."""
    if isinstance(label, str):
        return "a string"
    if isinstance(label, bool | np.bool_):
        return "a boolean"
    return "a number" if isinstance(label, Number) else f"a {type(label).__name__}"


def find_classes(labels: NDArray) -> NDArray:
    """Return the sorted classes; raise an InputValueError if there are fewer than two."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise InputValueError(
            f"y names {len(classes)} class ({classes.tolist()}); give at least two classes."
        )
    return classes


def warn_of_numbers(classes: NDArray, example: str) -> None:
    """Warn if labels are numbers, which a text model would read; ``example`` is a prompt."""
    if classes.dtype.kind in "biuf":
        warnings.warn(
            f"labels are numbers, so the model reads prompts such as {example!r}; name the "
            "classes in words, or pass prompts={label: prompt}.",
            UserWarning,
            stacklevel=3,
        )


def warn_of_alike(
    condition: Conditioning, prompts: Sequence[str], labels: Sequence[Any] | NDArray[Any]
) -> None:
    """Warn once of labels whose prompts the network cannot tell apart: their conditions are equal.

    Parameters
    ----------
    condition : Conditioning of length P
    prompts : sequence of str of length P
    labels : sequence of length P
        Label of each prompt.
    """
    prompt_of = [{plain_value(labels[p]): prompts[p] for p in group} for group in alike(condition)]
    # several templates may give the same labels again
    of_labels = {tuple(of_label): of_label for of_label in prompt_of if len(of_label) > 1}
    groups = list(of_labels.values())
    if not groups:
        return
    names = [", ".join(map(repr, of_label)) for of_label in groups[:5]]
    more = f" and {len(groups) - 5} more groups" if len(groups) > 5 else ""
    first, second = list(groups[0].values())[:2]
    warnings.warn(
        f"the model reads alike the labels {'; '.join(names)}{more}: prompts such as "
        f"{short_repr(first)} and {short_repr(second)} are encoded equally, so these classes "
        "always tie, after all draws of the budget. Merge them, or give other prompts.",
        UserWarning,
        stacklevel=3,
    )


def alike(condition: Conditioning) -> list[list[int]]:
    """Group the rows of a Conditioning that are equal, up to rounding.

    Rows that are encoded in different batches may differ in their last bits. Equal rows have equal
    projections on a random direction, so only neighbours in that order are compared.

    Examples
    --------
    >>> alike(Conditioning(tokens=torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])))
    [[0, 2]]
    """
    tensors = list(condition.tensors.values())
    generator = torch.Generator().manual_seed(0)
    directions = [
        torch.randn(tensor[0].numel(), generator=generator, dtype=torch.float64)
        for tensor in tensors
    ]
    projections = [
        sum(
            float(tensor[p].flatten().cpu().double() @ d)
            for tensor, d in zip(tensors, directions, strict=True)
        )
        for p in range(len(condition))
    ]
    groups: list[list[int]] = []
    for p in np.argsort(projections, kind="stable").tolist():
        if groups and all(_nearly_equal(tensor[groups[-1][-1]], tensor[p]) for tensor in tensors):
            groups[-1].append(p)
        else:
            groups.append([p])
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _nearly_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    tolerance = max(1e-5, 4 * torch.finfo(a.dtype).eps) if a.is_floating_point() else 0.0
    a, b = a.cpu().double(), b.cpu().double()
    return bool((a - b).norm() <= tolerance * a.norm())


def plain_value(label: Any) -> Any:
    """Convert a numpy scalar to the equal Python value, for readable messages."""
    return label.item() if isinstance(label, np.generic) else label
