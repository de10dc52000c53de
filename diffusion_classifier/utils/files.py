"""Files that are written whole or not at all, and read only if they are ordinary files.

A file is written under a temporary name in the same folder and then renamed. Whoever opens it sees
the earlier content or the new one, whenever the writer is interrupted: by an exception, a full
disk, Ctrl-C or a kill. A killed writer leaves its temporary file behind, and the next writer in
that folder removes it. A lock, which ends with its process, tells the two cases apart.
"""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

from ..errors import DamagedFileError, InputFileError, MissingFileError, NotAFolderError
from .display import short_repr

PREFIX, SUFFIX = ".diffusion_classifier-", ".tmp"  # of temporary files
LONGEST_WAIT = 60.0  # seconds that a writer waits for another one
_POLL = 0.005  # seconds
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_READ = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISREG, "a regular file"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a file so that others see its earlier content or the new one, never a part.

    Parameters
    ----------
    path : str or path-like
        An existing file keeps its permissions. Its folder must exist.

    Yields
    ------
    binary file
        Open for writing. It replaces ``path`` when the block ends, and is removed if the block
        raises.

    Raises
    ------
    InputFileError
        If ``path`` is anything but a regular file (a symbolic link is not followed), or the file
        cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table"
    >>> with atomic_file(path) as file:
    ...     _ = file.write(b"new")
    >>> path.read_bytes()
    b'new'
    """
    target = Path(path)
    check_regular(target)
    remove_leftovers(target.parent)
    try:
        file, temporary = _create(target.parent)
        try:
            with file:
                yield file
                if target.exists():
                    os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
                file.flush()
                os.fsync(file.fileno())
                if fcntl is None:
                    file.close()  # Windows does not rename open files
                os.replace(temporary, target)
            _sync_folder(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(
            f"{short_repr(str(target))} could not be written ({error.strerror or error}); what it "
            "held before is unchanged."
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # in use, gone, or somebody else's
            handle = os.open(path, _READ)
            try:
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(handle)
            if fcntl is None:
                path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one writer at a time into a folder. The lock ends with the process that holds it.

    There is no lock on Windows and on file systems without locks.

    Raises
    ------
    InputFileError
        If another writer holds the lock for more than a minute.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
    try:
        _wait_for_lock(handle, folder)
        yield
    finally:
        os.close(handle)


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Read a regular file of at most ``most`` bytes, without following a symbolic link.

    Raises
    ------
    MissingFileError
        If it does not exist.
    InputFileError
        If it is a link, a named pipe or anything else that is not a regular file, or cannot be
        read.
    DamagedFileError
        If it is larger.
    """
    name = short_repr(str(path))
    try:
        _check_kind(path, path.lstat().st_mode)
        handle = os.open(path, _READ)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            _check_kind(path, status.st_mode)
            if most is not None and status.st_size > most:
                raise DamagedFileError(
                    f"{name} has {status.st_size} bytes, more than the {most} that are read."
                )
            return file.read() if most is None else file.read(most)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{name} does not exist.") from error
    except InputFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputFileError(f"{name} cannot be read ({error}).") from error


def check_regular(path: Path) -> None:
    """Raise an InputFileError if a path exists and is no regular file, but a link, for example."""
    with suppress(FileNotFoundError, NotADirectoryError):
        _check_kind(path, path.lstat().st_mode)


def check_own_folder(path: Path) -> None:
    """Raise if a path exists and is no folder, or a symbolic link to one.

    Raises
    ------
    InputFileError
        If it is a symbolic link. Links among the folders above it are followed.
    NotAFolderError
        If it is a file.
    """
    if path.is_symlink():
        raise InputFileError(
            f"{short_repr(str(path))} is a symbolic link, which is not followed; pass the folder "
            "that it leads to."
        )
    if path.exists() and not path.is_dir():
        raise NotAFolderError(f"{short_repr(str(path))} is a file; pass a folder.")


def kind_of(mode: int) -> str:
    """Name what a path leads to, from its mode: "a regular file", "a named pipe", ..."""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no file")


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputFileError(
            f"{short_repr(str(path))} is {kind_of(mode)}, not a regular file; remove it or pass "
            "another path."
        )


def _create(folder: Path) -> tuple[IO[bytes], Path]:
    """Create and lock a temporary file."""
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        file = open(path, "xb")  # noqa: SIM115 (the caller closes it)
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():
            return file, path
        file.close()  # another writer took it for a leftover before it was locked


def _wait_for_lock(handle: int, folder: Path) -> None:
    end = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise InputFileError(
                    f"{short_repr(str(folder))} has been locked by another process for "
                    f"{LONGEST_WAIT:.0f} seconds; wait for it, or pass another folder."
                ) from None
            time.sleep(_POLL)
        except OSError:  # a file system without locks
            return None


def _sync_folder(folder: Path) -> None:
    """Make a renaming last through a power failure, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
