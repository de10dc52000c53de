"""Errors that say whether the input was bad or the network failed.

Each is also the built-in error that Python users expect, so ``except ValueError`` works as well::

    DiffusionClassifierError
        InputError                 what was given cannot be used
            InputValueError        ValueError
            InputTypeError         TypeError
            InputFileError         OSError
                MissingFileError   FileNotFoundError
                NotAFolderError    NotADirectoryError
                FolderInUseError   FileExistsError
        NetworkError               the network failed on input that is fine
            NonFiniteOutputError   FloatingPointError
            OutputShapeError       ValueError
            OutOfMemoryError       RuntimeError

Two kinds of error are left as they are: scikit-learn's ``NotFittedError``, and ``ImportError``
where an optional package is missing.

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
    """Any error that this package raises on purpose."""


class InputError(DiffusionClassifierError):
    """What the caller gave cannot be used: a parameter, an image, a label, a file or folder."""


class InputValueError(InputError, ValueError):
    """A value is out of range, of the wrong shape, or inconsistent with another."""


class InputTypeError(InputError, TypeError):
    """A value is of a type that cannot be used."""


class InputFileError(InputError, OSError):
    """A file, folder or Hub id cannot be read or written."""


class MissingFileError(InputFileError, FileNotFoundError):
    """A file or folder does not exist."""


class NotAFolderError(InputFileError, NotADirectoryError):
    """A folder is needed, but the path is a file."""


class FolderInUseError(InputFileError, FileExistsError):
    """A folder to write to holds other files."""


class NetworkError(DiffusionClassifierError):
    """The network failed, although what it was given is fine."""


class NonFiniteOutputError(NetworkError, FloatingPointError):
    """The network returned NaN or infinity."""


class OutputShapeError(NetworkError, ValueError):
    """A network or encoder of the user's returned something of the wrong shape or type."""


class OutOfMemoryError(NetworkError, RuntimeError):
    """A single row is too much for the device's memory."""
