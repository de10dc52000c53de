"""What commands read: lists of images, class names, folders and data sets with labels."""

from __future__ import annotations

import csv
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..datasets import load_image_folder
from ..errors import InputValueError
from ..evaluation.suites import load_rows
from ..images import as_images
from ..images.files import list_images
from ..utils.text import between_commas


def find_images(sources: Sequence[str]) -> list[str]:
    """List the images of files, folders, globs and, for "-", of stdin.

    Raises
    ------
    InputValueError
        If there are none, or a glob matches nothing.
    """
    paths: list[str] = []
    for source in sources:
        if source == "-":
            # Names of files are bytes, of any encoding, and may start or end with blanks.
            lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
            paths += [line for line in lines if line.strip()]
        elif glob.has_magic(source) and not os.path.exists(source):
            paths += [path for match in _matches(source) for path in _listed(match)]
        else:
            paths += _listed(source)
    if not paths:
        raise InputValueError("no images; give files, folders or globs, or - for a list on stdin.")
    return paths


def _listed(source: str) -> list[str]:
    """Return the images of a folder, or the path of a file."""
    return list_images(source) if os.path.isdir(source) else [source]


def _matches(pattern: str) -> list[str]:
    """Return what a glob matches, without folders whose content it matches as well."""
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise InputValueError(f"no file matches {pattern!r}.")
    above = {folder for match in matches for folder in Path(match).parents}
    return [match for match in matches if Path(match) not in above]


def shard_of(n: int, shard: str | None) -> range:
    """Return the places of the i-th of n parts for a shard "i/n", i from 1: every n-th image."""
    if shard is None:
        return range(n)
    number, slash, count = shard.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InputValueError(f"shard {shard!r} must be i/n with i from 1 to n, such as 1/8.")
    return range(int(number) - 1, n, int(count))


def read_labels(labels: str | None, file: Path | None) -> list[str]:
    """Return the class names of --labels or --labels-file, without blanks around them.

    Names on the command line that hold commas are put in double quotes, as in CSV.
    """
    if (labels is None) == (file is None):
        raise InputValueError("give the class names with either --labels or --labels-file.")
    if file is None:
        try:
            return between_commas(labels or "")
        except csv.Error as error:
            raise InputValueError(f"--labels cannot be read as CSV: {error}.") from error
    try:
        parts = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputValueError(
            f"the labels file {str(file)!r} is not in UTF-8 ({error.reason} at byte "
            f"{error.start}); save it as UTF-8."
        ) from error
    except FileNotFoundError as error:
        raise InputValueError(f"the labels file {str(file)!r} does not exist.") from error
    except OSError as error:
        raise InputValueError(
            f"the labels file {str(file)!r} cannot be read: {error.strerror}."
        ) from error
    return [part.strip() for part in parts if part.strip()]


class Labelled(NamedTuple):
    """Images with labels.

    Attributes
    ----------
    images : list of str or ImageSequence
    labels : ndarray of shape (n,)
    names : list of str or int
        Paths, or places in the data set.
    classes : list
        All classes, also those without images.
    """

    images: Any
    labels: NDArray[Any]
    names: list[Any]
    classes: list[Any]

    def chosen(self, places: Sequence[int]) -> Labelled:
        """Return the images at these places."""
        if isinstance(self.images, list):
            images: Any = [self.images[place] for place in places]
        else:
            images = self.images[list(places)]
        names = [self.names[place] for place in places]
        return Labelled(images, self.labels[list(places)], names, self.classes)


def read_labelled(
    folder: str | None,
    dataset: str | None,
    split: str | None,
    columns: tuple[str | None, str | None] = (None, None),
) -> Labelled:
    """Read a folder with one sub-folder per class, or a Hugging Face data set.

    Parameters
    ----------
    folder : str or None
    dataset : str or None
        Name on the Hub, or a folder that ``datasets`` can read.
    split : str or None
        Of the data set; None is "test", or all of a folder that was saved without splits.
    columns : tuple of (str or None, str or None)
        Names of the image and label columns; None finds the only ones.

    Raises
    ------
    InputValueError
        If not exactly one of both is given, or the data set does not fit.
    """
    if (folder is None) == (dataset is None):
        raise InputValueError("give either a folder with one sub-folder per class, or --dataset.")
    if folder is not None:
        found = load_image_folder(folder)
        classes = np.unique(found.labels).tolist()
        return Labelled(found.paths, found.labels, list(found.paths), classes)
    rows = load_rows(str(dataset), split)
    image = columns[0] or _only(rows, "Image", "--image-column")
    label = columns[1] or _only(rows, "ClassLabel", "--label-column")
    for option, name in (("--image-column", image), ("--label-column", label)):
        if name not in rows.column_names:
            raise InputValueError(
                f"{option} {name!r} is no column of {dataset!r}; it has {rows.column_names}."
            )
    names = getattr(rows.features[label], "names", None)
    labels = list(rows[label])
    for place, value in enumerate(labels):
        if value is None or (names is not None and not 0 <= value < len(names)):  # -1 by custom
            raise InputValueError(
                f"row {place} of the data set {dataset!r} has no label: {label!r} is {value!r}; "
                "choose another --split or --label-column, or remove such rows."
            )
    found = np.asarray(labels) if names is None else np.array(names)[labels]
    classes = np.unique(found if names is None else names).tolist()
    return Labelled(as_images(rows[image]), found, list(range(len(rows))), classes)


def _only(rows: Any, kind: str, option: str) -> str:
    """Return the only column with features of a kind."""
    found = [name for name, of in rows.features.items() if type(of).__name__ == kind]
    if len(found) != 1:
        raise InputValueError(
            f"the data set has {len(found)} columns of kind {kind}; choose one of "
            f"{rows.column_names} with {option}."
        )
    return found[0]


def limited(n: int, limit: int | None) -> Sequence[int]:
    """Return the places of at most ``limit`` images, the same at each call, drawn at random."""
    if limit is None or limit >= n:
        return range(n)
    return sorted(np.random.RandomState(0).permutation(n)[:limit].tolist())
