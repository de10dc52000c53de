"""Exceptions that tell bad input apart from a failing network.

Each also derives from the matching built-in exception, so ``except ValueError`` works as well::

    DiffusionClassifierError
        InputError                 the caller's input cannot be used
            InputValueError        ValueError
                AllSkippedError    every image was skipped; ``skipped`` holds the reasons
            InputTypeError         TypeError
            InputFileError         OSError
                MissingFileError   FileNotFoundError
                NotAFolderError    NotADirectoryError
                FolderInUseError   FileExistsError
                DamagedFileError   ValueError, and also an InputValueError
                StoreError         errors cannot be kept in a folder, or read from it
        NetworkError               the network failed on valid input
            NonFiniteOutputError   FloatingPointError
            OutputShapeError       ValueError
            OutOfMemoryError       RuntimeError

Two exceptions keep their usual types: scikit-learn's ``NotFittedError``, and ``ImportError`` when
an optional package is missing.

Examples
--------
>>> from diffusion_classifier import DiffusionClassifier
>>> from diffusion_classifier.errors import InputError
>>> try:
...     DiffusionClassifier().fit(None, ["cat"])
... except InputError as error:
...     print(error)
y names 1 class (['cat']); give at least two classes.
"""

from __future__ import annotations


class DiffusionClassifierError(Exception):
    """Base class of all errors that this package raises on purpose."""


class InputError(DiffusionClassifierError):
    """The caller's input cannot be used: a parameter, an image, a label, a file or a folder."""


class InputValueError(InputError, ValueError):
    """A value is out of range, of the wrong shape, or inconsistent with another."""


class AllSkippedError(InputValueError):
    """Every image was skipped.

    Attributes
    ----------
    skipped : list of (int, str)
        Index of each image, and the reason.
    """

    skipped: list[tuple[int, str]]

    def __init__(self, message: str, skipped: list[tuple[int, str]] | None = None) -> None:
        super().__init__(message)
        self.skipped = skipped or []


class InputTypeError(InputError, TypeError):
    """A value has an unsupported type."""


class InputFileError(InputError, OSError):
    """A file, folder or Hub id cannot be read or written."""


class MissingFileError(InputFileError, FileNotFoundError):
    """A file or folder does not exist."""


class NotAFolderError(InputFileError, NotADirectoryError):
    """A path that must be a folder is a file."""


class FolderInUseError(InputFileError, FileExistsError):
    """The folder to write to already holds unrelated files."""


class DamagedFileError(InputFileError, InputValueError):
    """A file holds something else than this package writes: damaged, edited or made up."""


class StoreError(InputFileError):
    """Errors cannot be kept in the folder of a store, or read from it."""


class NetworkError(DiffusionClassifierError):
    """The network failed on valid input."""


class NonFiniteOutputError(NetworkError, FloatingPointError):
    """The network returned NaN or infinity.

    Attributes
    ----------
    image : int or None
        Index of the image, if it is known.
    """

    image: int | None = None


class OutputShapeError(NetworkError, ValueError):
    """A user-supplied network or encoder returned output of the wrong shape or type."""


class OutOfMemoryError(NetworkError, RuntimeError):
    """The device's memory cannot hold even a batch of one row."""
