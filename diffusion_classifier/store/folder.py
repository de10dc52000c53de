"""The files of a store: each process adds to one of its own and reads all of them.

A file that is damaged is set aside: renamed, with a warning, after its sound rows were copied. What
is lost is computed again. A file of an older format is copied and renamed in the same way. A file
that another process keeps locked counts as absent.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import InputValueError, NotAFolderError, StoreError
from ..utils.display import short_repr
from .database import Database
from .keys import Content
from .schema import (
    FORMAT,
    BusyFileError,
    DamagedStoreError,
    Row,
    is_store_file,
    named_format,
)

_ROWS_PER_COPY = 5_000
_OWN_FILES: dict[tuple[int, str], Path] = {}  # by process, which may have been forked, and folder
_SECONDS_BETWEEN_TRIES = 0.05  # at a file that looks damaged

Answer = TypeVar("Answer")


class StoreFolder:
    """The files of a store, as one process sees them.

    Parameters
    ----------
    path : str or path-like
        Created when something is added.

    Raises
    ------
    InputValueError
        If the path is empty.
    NotAFolderError
        If it is a file.
    StoreError
        If a newer release wrote a file of it, or a file of an older one cannot be converted.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path):
            raise InputValueError("memory='' names no folder; set memory=None to keep no errors.")
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise NotAFolderError(
                f"memory={short_repr(str(path))} is a file; pass a folder for errors."
            )
        self._files: list[Path] = []
        self._open: dict[Path, Database] = {}
        self._writer: Database | None = None
        self._warned: set[Path] = set()
        self._ignored: set[Path] = set()  # damaged, in a folder that cannot be written
        self.refresh()

    def __enter__(self) -> StoreFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for database in [*self._open.values(), *filter(None, [self._writer])]:
            database.close()
        self._open, self._writer = {}, None

    # ------------------------------------------------------------------ reading

    def refresh(self) -> None:
        """See which files there are now."""
        paths = self._list()
        for path in set(self._open) - set(paths):
            self._open.pop(path).close()
        for path in paths:
            if named_format(path) > FORMAT:
                raise StoreError(
                    f"{short_repr(str(path))} has format {named_format(path)}, but this release "
                    f"reads formats up to {FORMAT}; upgrade diffusion_classifier, or pass another "
                    "folder."
                )
            if named_format(path) < FORMAT:
                self._convert(path)
        self._files = self._list()

    @property
    def files(self) -> list[Path]:
        """The files that were there at the last refresh, and have not been set aside since."""
        return list(self._files)

    def _list(self) -> list[Path]:
        """List the folder's regular files, sorted by name."""
        try:
            with os.scandir(self.path) as entries:
                paths = [
                    Path(entry.path)
                    for entry in entries
                    if is_store_file(entry.name) and entry.is_file(follow_symlinks=False)
                ]
            return sorted(set(paths) - self._ignored)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise StoreError(
                f"the folder {short_repr(str(self.path))} cannot be read ({error}); allow reading, "
                "or pass another folder as memory."
            ) from error

    def ask(self, question: Callable[[Database], Answer]) -> Iterator[Answer]:
        """Ask every file the same; those that are damaged, locked or unreadable do not answer.

        A damaged file is set aside, and its sound rows answer from the file of this process.
        """
        paths, asked = list(self._files), set()
        while paths:
            path = paths.pop(0)
            asked.add(path)
            try:
                yield self._try(path, question)
            except BusyFileError:
                continue
            except DamagedStoreError as error:
                self.set_aside(path, str(error))
                paths += [other for other in self._files if other not in {*asked, *paths}]
            except StoreError as error:
                self._warn_once(path, str(error))

    def _try(self, path: Path, question: Callable[[Database], Answer]) -> Answer:
        """Ask a file; once more if it looks damaged, as a file system may have been late."""
        try:
            return question(self.open(path))
        except DamagedStoreError:
            if path in self._open:
                self._open.pop(path).close()
            time.sleep(_SECONDS_BETWEEN_TRIES)
            return question(self.open(path))

    def open(self, path: Path) -> Database:
        """Return a file, opened for reading."""
        if path not in self._open:
            self._open[path] = Database(path)
        return self._open[path]

    # ------------------------------------------------------------------ damage and older formats

    def set_aside(self, path: Path, reason: str) -> None:
        """Copy the sound rows of a damaged file, then rename it.

        In this order, so that nothing is lost if it is interrupted. Rows that are there twice do no
        harm.
        """
        if path in self._open:
            self._open.pop(path).close()
        if path in self._files:
            self._files.remove(path)
        if self._writer is not None and self._writer.path == path:
            self._writer.close()
            self._writer = None
        if _OWN_FILES.get(self._own) == path:
            del _OWN_FILES[self._own]
        try:
            n_rows = self._salvage(path)
            new = self._rename(path, "damaged")
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:  # StoreErrors are among them
            self._ignored.add(path)
            self._warn_once(
                path, f"{short_repr(str(path))} is damaged ({reason}) and not used; it could not "
                f"be set aside ({error}).",
            )  # fmt: skip
            return
        warnings.warn(
            f"{short_repr(str(path))} is damaged ({reason}). It was set aside as "
            f"{short_repr(new.name)}; {n_rows} sound rows of it were kept, and other errors are "
            "computed again.",
            UserWarning,
            stacklevel=2,
        )

    def _rename(self, path: Path, mark: str) -> Path:
        new = path.with_name(f"{path.name}.{mark}-{secrets.token_hex(4)}")
        os.rename(path, new)
        with suppress(OSError):  # SQLite finds the journal by the name of its file
            os.rename(f"{path}-journal", f"{new}-journal")
        return new

    def _salvage(self, path: Path) -> int:
        """Copy the sound rows of a damaged file, and count them."""
        try:
            database = Database(path)
        except (DamagedStoreError, BusyFileError, StoreError):
            return 0
        try:
            return self.copy(database, [])
        except BusyFileError:
            return 0
        finally:
            database.close()

    def copy(self, database: Database, damaged: list[str] | None = None) -> int:
        """Add all rows of another file, and count them.

        Parameters
        ----------
        database : Database
        damaged : list, optional
            See ``Database.rows``.
        """
        n_rows, part = 0, []
        contents: dict[bytes, Content] = {}
        for row in database.rows(damaged):
            keys = (row.network, row.prompt, row.tape)
            try:
                contents |= {key: database.content(key) for key in keys if key not in contents}
            except DamagedStoreError:
                if damaged is None:
                    raise
                continue
            part.append(row)
            if len(part) >= _ROWS_PER_COPY:
                self.add(contents.values(), part)
                n_rows, part, contents = n_rows + len(part), [], {}
        if part:
            self.add(contents.values(), part)
        return n_rows + len(part)

    def _convert(self, path: Path) -> None:
        """Copy a file of an older format into this process's file, and rename it."""
        try:
            database = Database(path)
        except DamagedStoreError as error:
            return self.set_aside(path, str(error))
        except BusyFileError:
            return None  # the older release is writing to it
        damaged: list[str] = []
        try:
            self.copy(database, damaged)
        except BusyFileError:
            return None
        finally:
            database.close()
        if damaged:
            return self.set_aside(path, damaged[0])
        with suppress(FileNotFoundError):
            self._rename(path, "converted")
        return None

    def _warn_once(self, path: Path, message: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            warnings.warn(message, UserWarning, stacklevel=2)

    # ------------------------------------------------------------------ writing

    @property
    def _own(self) -> tuple[int, str]:
        return os.getpid(), os.path.realpath(self.path)

    def prepare(self) -> None:
        """Make sure that errors can be added.

        Raises
        ------
        StoreError
            If the folder or its file cannot be written.
        """
        if self._writer is not None and self._writer.is_in_place:
            return
        path = _OWN_FILES.get(self._own)
        if self._writer is not None or path is None or not path.exists():
            path = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if path is not None:
            with suppress(BusyFileError, DamagedStoreError):  # then another file is begun
                self._writer = Database(path, write=True)
        if path is None or self._writer is None:
            path = self._create()
            self._writer = Database(path, write=True)
        if path not in self._files:
            self._files.append(path)

    def _create(self) -> Path:
        """Create a file for this process."""
        try:
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the folder {short_repr(str(self.path))} cannot be made ({error}); pass another "
                "one as memory."
            ) from error
        host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32] or "host"
        name = f"errors-v{FORMAT}-{host}-{os.getpid()}-{secrets.token_hex(4)}.sqlite"
        path = self.path / name
        Database.create(path)
        _OWN_FILES[self._own] = path
        return path

    def add(self, contents: Collection[Content], rows: Iterable[Row]) -> None:
        """Add rows to the file of this process, and the contents that they refer to.

        Raises
        ------
        StoreError
            If they cannot be written.
        """
        rows = list(rows)
        for _ in range(2):
            self.prepare()
            assert self._writer is not None
            try:
                return self._writer.add(contents, rows)
            except BusyFileError:  # somebody reads it for long: go on in another file
                self._writer.close()
                self._writer = None
                _OWN_FILES.pop(self._own, None)
            except DamagedStoreError as error:
                self.set_aside(self._writer.path, str(error))
        raise StoreError(
            f"errors cannot be kept in {short_repr(str(self.path))}: its files are damaged or "
            "locked as soon as they are written; pass another folder as memory."
        )
