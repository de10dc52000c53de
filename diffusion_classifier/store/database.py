"""One SQLite file of a store: the errors that one process computed.

A file is written by one process, in transactions with a rollback journal, and read by any. It uses
no write-ahead log, which shared file systems do not support. A reader holds SQLite's lock only
while it fetches the rows of one image.

Whatever is read is verified. A content is found by a hash of itself. A row has a checksum over the
keys that it was asked by and its errors. Files whose tables are not exactly those below are damaged
as well.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import StoreError
from ..utils.display import short_repr
from ..utils.files import atomic_file
from .keys import KINDS, Content
from .schema import (
    APPLICATION,
    FORMAT,
    SCHEMAS,
    BusyFileError,
    DamagedStoreError,
    Row,
    empty_file,
    named_format,
)

_SECONDS_TO_READ, _SECONDS_TO_WRITE = 1.0, 5.0  # that a busy file is tried again
_MOST_IDS = 500  # in one query
_MOST_CACHED = 10_000
_DAMAGE = (
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
)
_SHORT_READ = 522  # SQLITE_IOERR_SHORT_READ


class Database:
    """An open file of a store.

    Parameters
    ----------
    path : Path
    write : bool, default=False
        Whether rows will be added.

    Raises
    ------
    DamagedStoreError, BusyFileError
    StoreError
        If it cannot be opened.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        self.format = named_format(path)
        self._ids: dict[bytes, int] = {}  # of contents
        self._keys: dict[tuple[str, int], bytes] = {}  # of contents and images, by table and id
        with self._translating():
            # A reader also opens for writing where it may: after a kill, it rolls back the
            # transaction that the writer left.
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=_SECONDS_TO_WRITE if write else _SECONDS_TO_READ,
            )
        try:
            with self._translating():
                self._inode = os.stat(path).st_ino
                for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "synchronous=FULL"):
                    self._connection.execute(f"PRAGMA {pragma}")
                if not write:
                    self._connection.execute("PRAGMA query_only=ON")
                self._check_schema()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def create(cls, path: Path) -> None:
        """Create an empty file, which nobody sees before it is complete.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        try:
            with atomic_file(path) as file:
                file.write(empty_file(FORMAT))
        except OSError as error:
            raise StoreError(
                f"errors cannot be kept in {short_repr(str(path.parent))} ({error}); make room or "
                "allow writing, or pass another folder as memory."
            ) from error

    def close(self) -> None:
        self._connection.close()

    @property
    def is_in_place(self) -> bool:
        """Whether the file still lies under its name; others may have set it aside."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def _check_schema(self) -> None:
        application, version, n_pages, page_size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "page_count", "page_size")
        )
        if (application, version) != (APPLICATION, self.format):
            raise DamagedStoreError("its header was changed")
        if os.stat(self.path).st_size < n_pages * page_size:  # SQLite reads zeros there
            raise DamagedStoreError("its end is missing")
        query = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
        if dict(self._connection.execute(query).fetchall()) != SCHEMAS[self.format]:
            raise DamagedStoreError("its tables are others than this package makes")

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn SQLite's exceptions into those of this module."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake in this module
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise BusyFileError from error
            if code is None or code & 0xFF in _DAMAGE or code == _SHORT_READ:
                raise DamagedStoreError(str(error)) from error
            raise StoreError(
                f"{short_repr(str(self.path))} cannot be read or written ({error}); make room or "
                "allow writing, or pass another folder as memory."
            ) from error

    # ------------------------------------------------------------------ looking up

    def find_ids(self, contents: Collection[bytes]) -> dict[int, bytes]:
        """Return the ids of the contents with these keys, as far as the file has them."""
        keys = list(contents)
        found: dict[int, bytes] = {}
        with self._translating():
            for first in range(0, len(keys), _MOST_IDS):
                part = keys[first : first + _MOST_IDS]
                query = f"SELECT id, key FROM contents WHERE key IN ({_marks(part)})"
                found.update(self._connection.execute(query, part).fetchall())
        return found

    def find(
        self, network: int, network_key: bytes, image: bytes, prompts: Mapping[int, bytes]
    ) -> list[Row]:
        """Return the verified rows of one image.

        Parameters
        ----------
        network : int
            Its id in this file.
        network_key, image : bytes
        prompts : mapping of int to bytes
            Keys of the prompts that are asked for, by their ids in this file.
        """
        query = (
            "SELECT prompt, tape, start, size, errors, crc FROM errors WHERE network = ? "
            "AND image = (SELECT id FROM images WHERE key = ?)"
        )
        values: list[Any] = [network, image]
        if len(prompts) <= _MOST_IDS:
            query += f" AND prompt IN ({_marks(prompts)})"
            values += prompts
        with self._translating():
            found = self._connection.execute(query, values).fetchall()
            return [
                self._verified(
                    network_key, image, prompts[row[0]], self._key("contents", row[1]), *row[2:]
                )
                for row in found
                if row[0] in prompts
            ]

    def _verified(
        self, network: bytes, image: bytes, prompt: bytes, tape: bytes, start: Any, size: Any,
        errors: Any, crc: Any = None,
    ) -> Row:  # fmt: skip
        """Return a row that has the right types and checksum."""
        good = isinstance(start, int) and 0 <= start < 2**31 and size in (4, 8)
        if not (good and isinstance(errors, bytes) and len(errors) % size == 0):
            raise DamagedStoreError("a row has other types than this package writes")
        row = Row(network, image, prompt, tape, start, size, errors)
        if self.format > 0 and row.checksum() != crc:
            raise DamagedStoreError("the checksum of a row differs from its content")
        return row

    def _key(self, table: str, number: int) -> bytes:
        """Return the key of an image or content by its id."""
        key = self._keys.get((table, number))
        if key is None:
            query = f"SELECT key FROM {table} WHERE id = ?"
            found = self._connection.execute(query, (number,)).fetchone()
            if found is None or not isinstance(found[0], bytes):
                raise DamagedStoreError(f"a row refers to an entry of {table} that is not there")
            if len(self._keys) >= _MOST_CACHED:
                self._keys.clear()
            key = self._keys[table, number] = found[0]
        return key

    def content(self, key: bytes) -> Content:
        """Return the verified content with a key."""
        with self._translating():
            query = "SELECT kind, text FROM contents WHERE key = ?"
            found = self._connection.execute(query, (key,)).fetchone()
        content = None if found is None else _as_content(*found)
        if content is None or content.key != key:
            raise DamagedStoreError("a network, prompt or list of draws is not as it was written")
        return content

    # ------------------------------------------------------------------ reading all

    def contents(self, kind: str) -> dict[int, Content]:
        """Return the contents of a kind by their ids; those not as they were written are left out.

        There are few: networks, prompts, and the draws of races.
        """
        with self._translating():
            query = "SELECT id, key, text FROM contents WHERE kind = ?"
            found = self._connection.execute(query, (kind,)).fetchall()
        contents = {number: (key, _as_content(kind, text)) for number, key, text in found}
        return {
            n: content for n, (key, content) in contents.items() if content and content.key == key
        }

    def image_keys(self, after: bytes, most: int, network: int | None = None) -> list[bytes]:
        """Return the next keys of images, sorted; by default of all networks."""
        query = "SELECT key FROM images WHERE key > ?"
        values: list[Any] = [after]
        if network is not None:
            query += " AND id IN (SELECT DISTINCT image FROM errors WHERE network = ?)"
            values.append(network)
        with self._translating():
            found = self._connection.execute(f"{query} ORDER BY key LIMIT ?", (*values, most))
            return [key for (key,) in found]

    def totals(self) -> list[tuple[int, int, int, int]]:
        """Return the ids of each network and tape, their number of errors, and of draws used."""
        query = (
            "SELECT network, tape, SUM(LENGTH(errors) / size), MAX(start + LENGTH(errors) / size) "
            "FROM errors GROUP BY network, tape"
        )
        with self._translating():
            return self._connection.execute(query).fetchall()

    def prompts_of(self, network: int) -> set[int]:
        """Return the ids of the prompts that have errors of a network."""
        query = "SELECT DISTINCT prompt FROM errors WHERE network = ?"
        with self._translating():
            return {number for (number,) in self._connection.execute(query, (network,))}

    def check(self) -> None:
        """Raise a DamagedStoreError if SQLite finds a fault in the file's structure."""
        with self._translating():
            found = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != ("ok",):
            raise DamagedStoreError(f"SQLite reports: {str(found[0])[:200]}")

    def rows(self, damaged: list[str] | None = None) -> Iterator[Row]:
        """Yield all rows.

        Parameters
        ----------
        damaged : list, optional
            Takes what is wrong with rows that cannot be read or verified, which are left out. A
            damaged page ends a pass over the file, so there is a second one from its other end.
            Without the list, damage raises.
        """
        columns = "network, image, prompt, tape, start, size, errors" + ", crc" * (self.format > 0)
        for order in ("ASC", "DESC"):
            by = ", ".join(f"{name} {order}" for name in ("network", "image", "prompt", "tape"))
            try:
                with self._translating():
                    cursor = self._connection.execute(f"SELECT {columns} FROM errors ORDER BY {by}")
                    while found := cursor.fetchone():
                        network, image, prompt, tape, *rest = found
                        try:
                            yield self._verified(
                                self._key("contents", network),
                                self._key("images", image),
                                self._key("contents", prompt),
                                self._key("contents", tape),
                                *rest,
                            )
                        except DamagedStoreError as error:
                            if damaged is None:
                                raise
                            damaged.append(str(error))
                return
            except DamagedStoreError as error:
                if damaged is None:
                    raise
                damaged.append(str(error))

    # ------------------------------------------------------------------ writing

    def add(self, contents: Iterable[Content], rows: Iterable[Row]) -> None:
        """Add contents and rows in one transaction; those that are there already stay.

        Raises
        ------
        StoreError
            If the disk is full or the file is read-only. The file then holds what it held before.
        """
        execute = self._connection.execute
        with self._translating():
            execute("BEGIN IMMEDIATE")
            self._ids.clear()  # another process may have removed a network since
            try:
                for content in contents:
                    execute(
                        "INSERT OR IGNORE INTO contents (key, kind, text) VALUES (?, ?, ?)",
                        (content.key, *content),
                    )
                images: dict[bytes, int] = {}
                for row in rows:
                    if row.image not in images:
                        execute("INSERT OR IGNORE INTO images (key) VALUES (?)", (row.image,))
                        query = "SELECT id FROM images WHERE key = ?"
                        images[row.image] = execute(query, (row.image,)).fetchone()[0]
                    execute(
                        "INSERT INTO errors VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                        "SET size = excluded.size, errors = excluded.errors, crc = excluded.crc "
                        "WHERE LENGTH(excluded.errors) > LENGTH(errors.errors)",
                        (
                            self._id(row.network),
                            images[row.image],
                            self._id(row.prompt),
                            self._id(row.tape),
                            row.start,
                            row.size,
                            row.errors,
                            row.checksum(),
                        ),
                    )
                execute("COMMIT")
            except BaseException:
                self._ids.clear()  # some of them may be rolled back
                with suppress(sqlite3.Error):
                    execute("ROLLBACK")
                raise

    def _id(self, key: bytes) -> int:
        """Return the id of a content that the file has."""
        if key not in self._ids:
            if len(self._ids) >= _MOST_CACHED:
                self._ids.clear()
            query = "SELECT id FROM contents WHERE key = ?"
            self._ids[key] = self._connection.execute(query, (key,)).fetchone()[0]
        return self._ids[key]

    def remove_network(self, number: int) -> None:
        """Remove a network's errors, and give their room back."""
        with self._translating():
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            try:
                execute("DELETE FROM errors WHERE network = ?", (number,))
                execute("DELETE FROM contents WHERE id = ?", (number,))
                execute("DELETE FROM images WHERE id NOT IN (SELECT image FROM errors)")
                execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    execute("ROLLBACK")
                raise
            execute("VACUUM")


def _as_content(kind: Any, text: Any) -> Content | None:
    return Content(kind, text) if kind in KINDS and isinstance(text, str) else None


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))
