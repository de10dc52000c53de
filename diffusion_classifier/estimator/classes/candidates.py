"""Candidates that the user gives for each image, as labels or as a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ...errors import InputValueError
from ...records.table import ErrorTable
from ...scoring.candidates import Candidates
from ...utils.display import short_repr
from .labels import plain_value

GivenCandidates = Sequence[Sequence[Any]] | ArrayLike | None


def read_candidates(given: Any, classes: NDArray[Any], n_images: int) -> Candidates:
    """Read the classes that each image may have.

    Parameters
    ----------
    given : sequence of length N of sequences of labels, or boolean array of shape (N, K)
    classes : ndarray of shape (K,)
        All labels, in the order of the mask's columns.
    n_images : int
        The number of images N.

    Raises
    ------
    InputValueError
        If there are not as many entries as images, the mask has another number of columns or is a
        list, a label is not known or given twice, or an image has no candidate.

    Examples
    --------
    >>> classes = np.array(["cat", "dog", "fox"])
    >>> read_candidates([["fox", "cat"], ["dog"]], classes, 2).mask.tolist()
    [[True, False, True], [False, True, False]]
    """
    mask = _as_mask(given)
    if mask is None:
        mask = _look_up(given, classes, n_images)
    elif mask.shape != (n_images, len(classes)):
        raise InputValueError(
            f"candidates is a mask of shape {mask.shape}, but there are {n_images} images and "
            f"{len(classes)} classes; give one row per image and one column per class, in the "
            "order of classes_."
        )
    empty = ~mask.any(1)
    if empty.any():
        raise InputValueError(
            f"candidates[{int(empty.argmax())}] is empty; give at least one class for every image."
        )
    return Candidates(mask)


def _as_mask(given: Any) -> NDArray[np.bool_] | None:
    """Return an array or data frame of booleans as an array; None for anything else."""
    if isinstance(given, list | tuple) or not hasattr(given, "__array__"):
        return None
    array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
    return array.copy() if array.dtype == bool and array.ndim == 2 else None


def _look_up(given: Any, classes: NDArray[Any], n_images: int) -> NDArray[np.bool_]:
    if isinstance(given, str | bytes | dict | set) or not hasattr(given, "__len__"):
        raise InputValueError(
            f"candidates={short_repr(given)} must be a list of labels for each image, or a boolean "
            "array of shape (n_images, n_classes)."
        )
    if len(given) != n_images:
        raise InputValueError(
            f"candidates has {len(given)} entries, but there are {n_images} images; give a list of "
            "labels for each image."
        )
    column = {label: k for k, label in enumerate(classes.tolist())}
    has_booleans = any(isinstance(label, bool) for label in column)
    mask = np.zeros((n_images, len(classes)), bool)
    for i, labels in enumerate(given):
        if isinstance(labels, str | bytes | dict) or not hasattr(labels, "__iter__"):
            raise InputValueError(
                f"candidates[{i}]={short_repr(labels)} must be a list of labels, such as "
                f"[{plain_value(classes[0])!r}]."
            )
        for label in labels:
            if isinstance(label, bool | np.bool_) and not has_booleans:  # True would be label 1
                raise InputValueError(
                    f"candidates[{i}]={short_repr(labels)} has booleans, but the labels are none; "
                    "a mask must be an array: give np.array(mask)."
                )
            try:
                k = column[plain_value(label)]
            except (KeyError, TypeError):
                raise InputValueError(
                    f"candidates[{i}] has the label {short_repr(label)}, which is not in "
                    f"classes_, {short_repr(classes.tolist())}."
                ) from None
            if mask[i, k]:
                raise InputValueError(
                    f"candidates[{i}] has the label {short_repr(label)} twice; give it once."
                )
            mask[i, k] = True
    return mask


def answered_among(table: ErrorTable, candidates: Candidates) -> ErrorTable:
    """Return a table whose answers are among candidates.

    Images that raced exactly these candidates, with the same priors, need no further errors.

    Raises
    ------
    InputValueError
        If it lacks errors of a candidate.
    """
    class_of = table.scoring.class_of.numpy()
    raced = candidates.mask[:, class_of] & (candidates.mask.sum(1) > 1)[:, None]
    raced[[image for image, _ in table.skipped]] = False
    own = table.candidates
    if own is None or not own.strength:
        raced[(candidates.mask == (True if own is None else own.mask)).all(1)] = False
    lacking = np.isnan(table.errors).any(2) & raced
    if lacking.any():
        image, prompt = np.argwhere(lacking)[0].tolist()
        label = plain_value(table.classes[class_of[prompt]])
        raise InputValueError(
            f"the table lacks errors of image {image} for its candidate {label!r}; record it with "
            "errors(X, full=True), or pass the images."
        )
    return replace(table, candidates=candidates)
