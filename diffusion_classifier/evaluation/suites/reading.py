"""Images of a suite: from the Hub, a folder or a data set in memory, and their classes in words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...datasets import load_image_folder
from ...errors import InputValueError
from ...images import as_images
from ...utils.display import short_repr
from .suite import Suite

SAVED = ("state.json", "dataset_dict.json")  # of a data set that was saved to disk


class SuiteImages(NamedTuple):
    """Labelled images of a suite.

    Attributes
    ----------
    images : list of str or ImageSequence
    labels : ndarray of str of shape (n,)
        Class of each image, in words.
    classes : list of str
        All classes.
    """

    images: Any
    labels: NDArray[Any]
    classes: list[str]

    def chosen(self, places: Sequence[int]) -> SuiteImages:
        """Return the images at these places."""
        chosen = list(places)
        is_list = isinstance(self.images, list)
        images = [self.images[place] for place in chosen] if is_list else self.images[chosen]
        return SuiteImages(images, self.labels[chosen], self.classes)


def load_rows(name: str, split: str | None, revision: str | None = None) -> Any:
    """Load one split of a Hugging Face data set, from the Hub or a folder.

    Parameters
    ----------
    name : str
        Name on the Hub, or a folder that ``datasets`` can read.
    split : str or None
        None is "test", or all of a folder that was saved without splits.
    revision : str, optional
        Of a data set on the Hub.

    Returns
    -------
    datasets.Dataset

    Raises
    ------
    InputValueError
        If it cannot be loaded, or ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputValueError("data sets need datasets: pip install datasets.") from error
    try:
        if not any((Path(name) / file).is_file() for file in SAVED):
            return datasets.load_dataset(name, split=split or "test", revision=revision)
        rows = datasets.load_from_disk(name)
        if isinstance(rows, dict):
            return rows[split or "test"]
        if split not in (None, rows.split):
            raise ValueError(f"it was saved without splits (split: {rows.split}); omit --split.")
        return rows
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputValueError(
            f"the data set {name!r}, split {split or 'test'!r}, cannot be loaded: {reason}"
        ) from error


def rows_of(suite: Suite, data: Any) -> Any:
    """Return the rows of a suite's data set; None loads them from the Hub."""
    if data is None:
        try:
            return load_rows(suite.data_id, suite.split, suite.revision)
        except InputValueError as error:
            raise InputValueError(
                f"{error} Suite {suite.name!r} reads {suite.data_id!r} from the Hub; without it, "
                "give a folder with one sub-folder per class, or a saved data set, as data "
                "(in the shell: --data FOLDER)."
            ) from error
    if isinstance(data, str | os.PathLike):
        whole = (Path(data) / "dataset_dict.json").is_file()
        return load_rows(os.fspath(data), suite.split if whole else None)
    if not isinstance(data, dict):
        return data
    if suite.split not in data:
        raise InputValueError(f"data has no split {suite.split!r}, only {sorted(data)}.")
    return data[suite.split]


def read_suite_images(
    suite: Suite, data: Any = None, class_names: Sequence[str] | None = None
) -> SuiteImages:
    """Read the images of a suite.

    Parameters
    ----------
    suite : Suite
        For classification.
    data : None, str, path-like or datasets.Dataset
        None: from the Hub. A folder holds one sub-folder per class, by itself or below a folder
        named after the split, or a data set that ``save_to_disk`` wrote.
    class_names : sequence of str, optional
        Words for the classes, in the order of the labels, or of the sub-folders by name; names
        that are numbers are in the order of their values.

    Returns
    -------
    SuiteImages

    Raises
    ------
    InputError
        If the images cannot be read, a column is missing, or the classes cannot be named.
    """
    is_path = isinstance(data, str | os.PathLike)
    if is_path and not any((Path(data) / file).is_file() for file in SAVED):
        below = Path(data) / suite.split
        found = load_image_folder(below if below.is_dir() else Path(data))
        own, images = _in_order(found.classes), found.paths
        place = {name: number for number, name in enumerate(own)}
        columns = np.array([place[label] for label in found.labels])
    else:
        own, images, columns = _read_rows(suite, rows_of(suite, data))
    words = _words(suite, own, class_names)
    if suite.kept:
        wanted = {_plain(name) for name in suite.kept}
        keep = [_plain(name) in wanted for name in own]
        if not any(keep):
            raise InputValueError(
                f"the data have none of the classes of suite {suite.name!r}: {short_repr(own)}."
            )
        rows = np.flatnonzero(np.array(keep)[columns])
        images = [images[i] for i in rows] if isinstance(images, list) else images[rows]
        columns = columns[rows]
        classes = [word for word, kept in zip(words, keep, strict=True) if kept]
    else:
        classes = words
    return SuiteImages(images, np.array(words)[columns], sorted(classes))


def balanced(labels: NDArray[Any], limit: int | None, seed: int) -> list[int]:
    """Choose images so that classes have the same number of them, but for one.

    Parameters
    ----------
    labels : ndarray of shape (n,)
    limit : int or None
        Most images.
    seed : int

    Returns
    -------
    list of int
        Places, increasing. A larger limit with the same seed adds to them.

    Examples
    --------
    >>> chosen = balanced(np.array(["cat"] * 90 + ["dog"] * 10), 6, seed=0)
    >>> sum(place < 90 for place in chosen)
    3
    """
    if limit is None or limit >= len(labels):
        return list(range(len(labels)))
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(labels))
    ranks, seen = np.empty(len(labels), dtype=int), dict.fromkeys(labels.tolist(), 0)
    for place in order.tolist():
        ranks[place] = seen[labels[place]]
        seen[labels[place]] += 1
    chosen = order[np.argsort(ranks[order], kind="stable")][:limit]
    return sorted(chosen.tolist())


def _read_rows(suite: Suite, rows: Any) -> tuple[list[str], Any, NDArray[np.int64]]:
    """Return the names of classes, the images, and the place of each image's class."""
    image, label = suite.images[0], suite.labels[0]
    check_columns(suite, rows, (image, label))
    values = list(rows[label])
    names = getattr(rows.features[label], "names", None)
    for number, value in enumerate(values):
        missing = value is None or (isinstance(value, int) and value < 0)
        if missing or (names is not None and not 0 <= value < len(names)):
            raise InputValueError(f"row {number} of suite {suite.name!r} has no label: {value!r}.")
    if names is None:
        names = _in_order({str(value) for value in values})
        place = {name: number for number, name in enumerate(names)}
        values = [place[str(value)] for value in values]
    return list(names), as_images(rows[image]), np.array(values)


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort names; numbers by their values, as lists of class names have them: 2 before 10."""
    found = sorted(names)
    return sorted(found, key=int) if all(map(_is_number, found)) else found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def check_columns(suite: Suite, rows: Any, names: Sequence[str]) -> None:
    """Raise unless a data set has these columns."""
    have = getattr(rows, "column_names", [])
    for name in names:
        if name not in have:
            raise InputValueError(
                f"the data of suite {suite.name!r} have no column {name!r}, only {have}."
            )


def _words(suite: Suite, own: list[str], given: Sequence[str] | None) -> list[str]:
    """Return words for the classes of the data: given ones, or their own names made readable."""
    if given is not None:
        listed = len(given) == len(suite.kept) and len(given) != len(own)
        if listed:  # names of the classes that the suite keeps, in its order
            of = {_plain(key): word for key, word in zip(suite.kept, given, strict=True)}
            return [of.get(_plain(name), name) for name in own]
        if len(given) != len(own):
            raise InputValueError(
                f"there are {len(given)} class names, but the data have {len(own)} classes: "
                f"{short_repr(own)}."
            )
        return list(given)
    renamed = {_plain(key): word for key, word in suite.renamed.items()}
    # Ten numbers or fewer may be pictures of digits.
    numbered = len(own) > 10 and all(map(_is_number, own)) and not renamed.keys() & set(own)
    if numbered or any(re.fullmatch(r"n\d{8}", name) for name in own):
        raise InputValueError(
            f"the classes are named by number, such as {own[0]!r}; give their names in words, in "
            "the order of the numbers, as classnames (in the shell: --classnames F)."
        )
    first = [name.split(",")[0].replace("_", " ").strip() for name in own]
    whole = [name.replace("_", " ").strip() for name in own]
    words = [
        renamed.get(_plain(name), short if first.count(short) == 1 else long)
        for name, short, long in zip(own, first, whole, strict=True)
    ]
    if len(set(words)) != len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise InputValueError(
            f"two classes of suite {suite.name!r} are called {twice!r}; give --classnames F."
        )
    return words


def _plain(name: str) -> str:
    """Return a name without what spellings of it differ in."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())
