"""Templates and class names in the JSON form of CLIP_benchmark.

One object: names of data sets, each with a list. Templates have the slot ``{c}`` for the class, or
are an object of class names, each with its own prompts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...errors import InputValueError
from ...utils.display import short_repr
from ...utils.files import read_regular

MOST_BYTES = 50_000_000
Names = str | os.PathLike[str]


def read_class_names(file: Names, data_sets: tuple[str, ...]) -> list[str]:
    """Read the class names of a data set, in the order of its labels.

    Parameters
    ----------
    file : str or path-like
        JSON: ``{"pets": ["Abyssinian", ...]}``, or the list alone.
    data_sets : tuple of str
        Names that the data set may have in the file; "vtab/" before one is ignored.

    Returns
    -------
    list of str

    Raises
    ------
    InputValueError
        If the file is no such JSON, or lacks the data set.
    InputFileError
        If it cannot be read.
    """
    names = _entry(file, data_sets)
    if not isinstance(names, list) or not names or not all(map(_is_text, names)):
        raise InputValueError(f"{str(file)!r}: the class names must be a list of texts.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputValueError(f"{str(file)!r} has the class name {twice!r} twice; tell them apart.")
    return names


def read_templates(file: Names, data_sets: tuple[str, ...]) -> list[str] | dict[str, list[str]]:
    """Read the templates of a data set, with ``{}`` as their slot, or the prompts of each class.

    Parameters
    ----------
    file : str or path-like
        JSON: ``{"pets": ["a photo of a {c}.", ...]}``, or the list alone; or
        ``{"pets": {"Abyssinian": ["a ruddy cat", ...]}}``.
    data_sets : tuple of str
        As for :func:`read_class_names`.

    Returns
    -------
    list of str or dict of str to list of str

    Raises
    ------
    InputValueError
        If the file is no such JSON, or lacks the data set.
    InputFileError
        If it cannot be read.
    """
    found = _entry(file, data_sets)
    lists = found.values() if isinstance(found, dict) else [found]
    if not found or not all(isinstance(x, list) and x and all(map(_is_text, x)) for x in lists):
        raise InputValueError(
            f"{str(file)!r}: templates must be a list of texts, or such a list for each class."
        )
    if isinstance(found, dict):
        return found
    return [template.replace("{c}", "{}") for template in found]


def _entry(file: Names, data_sets: tuple[str, ...]) -> Any:
    """Return what a file holds for a data set."""
    try:
        values = json.loads(read_regular(Path(file).resolve(), MOST_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputValueError(f"{str(file)!r} cannot be read as JSON: {error}.") from error
    if isinstance(values, list):
        return values
    if not isinstance(values, dict):
        raise InputValueError(f"{str(file)!r} must hold names of data sets, each with a list.")
    known = {str(key).removeprefix("vtab/"): value for key, value in values.items()}
    for name in data_sets:
        if name in known:
            return known[name]
    raise InputValueError(
        f"{str(file)!r} has nothing for {' or '.join(map(repr, data_sets))}, only for "
        f"{short_repr(sorted(known))}; add one of these keys."
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
