"""The tables of a store's file, their format, and one row of errors."""

from __future__ import annotations

import re
import sqlite3
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
APPLICATION = 0x44434552  # "DCER", in the header of the file
_NAME = re.compile(r"errors-v(\d{1,6})-.*\.sqlite")
_CONTENTS = (
    "CREATE TABLE contents (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
    "kind TEXT NOT NULL, text TEXT NOT NULL)"
)
_IMAGES = "CREATE TABLE images (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE)"
_ERRORS = (
    "CREATE TABLE errors (network INTEGER NOT NULL, image INTEGER NOT NULL, "
    "prompt INTEGER NOT NULL, tape INTEGER NOT NULL, start INTEGER NOT NULL, "
    "size INTEGER NOT NULL, errors BLOB NOT NULL, {}"
    "PRIMARY KEY (network, image, prompt, tape, start)) WITHOUT ROWID"
)
# Format 0 had no checksums.
SCHEMAS = {
    0: {"contents": _CONTENTS, "images": _IMAGES, "errors": _ERRORS.format("")},
    1: {
        "contents": _CONTENTS,
        "images": _IMAGES,
        "errors": _ERRORS.format("crc INTEGER NOT NULL, "),
    },
}


class BusyFileError(Exception):
    """Another process has locked the file."""


class DamagedStoreError(Exception):
    """A file is not as it was written."""


class Row(NamedTuple):
    """Errors of one image, prompt and consecutive draws.

    Attributes
    ----------
    network, image, prompt, tape : bytes
        Keys.
    start : int
        Place of the first draw in the tape.
    size : {4, 8}
        Bytes of an error: float32, or float64 of exact backends.
    errors : bytes
        Little-endian.
    """

    network: bytes
    image: bytes
    prompt: bytes
    tape: bytes
    start: int
    size: int
    errors: bytes

    @property
    def values(self) -> NDArray[np.floating]:
        """The errors."""
        return np.frombuffer(self.errors, f"<f{self.size}")

    def checksum(self) -> int:
        """Return a checksum of keys and errors."""
        place = b"".join(self[:4]) + struct.pack("<qq", self.start, self.size)
        return zlib.crc32(self.errors, zlib.crc32(place))


def named_format(path: Path) -> int:
    """Return the format that a file's name states; the file is damaged if its header differs."""
    found = _NAME.fullmatch(path.name)
    assert found is not None  # as list_files found it
    return int(found[1])


def is_store_file(name: str) -> bool:
    """Whether a file has the name of a store's file."""
    return _NAME.fullmatch(name) is not None


@lru_cache
def empty_file(version: int) -> bytes:
    """Return the bytes of a file without rows."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={version}")
    for statement in SCHEMAS[version].values():
        connection.execute(statement)
    connection.commit()
    data = connection.serialize()
    connection.close()
    return data
