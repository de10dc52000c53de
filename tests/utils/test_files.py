"""Files are written whole or not at all, and only ordinary files are read."""

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from diffusion_classifier.errors import DamagedFileError, InputFileError, MissingFileError
from diffusion_classifier.utils import files
from diffusion_classifier.utils.files import PREFIX, atomic_file, locked, read_regular


def forked(work):
    """Start a child process that does the work and ends with status 0, or 1 if it raised."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(b"old")
    return path


def test_a_file_is_replaced_when_the_block_ends(target):
    target.chmod(0o640)
    with atomic_file(target) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and names(target.parent) == ["table"]
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_earlier_file(target, error):
    with pytest.raises(error), atomic_file(target) as file:
        file.write(b"new")
        raise error
    assert target.read_bytes() == b"old" and names(target.parent) == ["table"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupt_while_the_file_is_finished_leaves_the_earlier_one(target, monkeypatch, call):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as file:
        file.write(b"new")
    assert target.read_bytes() == b"old" and names(target.parent) == ["table"]


def test_a_full_disk_leaves_the_earlier_file_and_is_an_error_that_names_it(target):
    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with (
            pytest.raises(InputFileError, match=r"table' could not be written .*unchanged"),
            atomic_file(target) as file,
        ):
            file.write(b"x" * 100_000)

    assert os.waitpid(forked(fill), 0)[1] == 0
    assert target.read_bytes() == b"old" and names(target.parent) == ["table"]


def test_what_a_killed_writer_left_is_removed_and_a_live_writers_file_is_not(target):
    def write_for_ever():
        with atomic_file(target) as file:
            file.write(b"part")
            file.flush()
            time.sleep(60)

    pid = forked(write_for_ever)
    while len(names(target.parent)) == 1:
        time.sleep(0.001)
    with atomic_file(target) as file:
        file.write(b"second")
    temporary = [name for name in names(target.parent) if name != "table"]
    assert len(temporary) == 1 and temporary[0].startswith(PREFIX)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with atomic_file(target) as file:
        file.write(b"third")
    assert names(target.parent) == ["table"] and target.read_bytes() == b"third"


MAKE = {
    "symbolic link": lambda path: path.symlink_to("elsewhere"),
    "folder": Path.mkdir,
    "named pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", MAKE)
def test_anything_but_a_regular_file_is_neither_written_nor_read(tmp_path, kind):
    (tmp_path / "elsewhere").write_bytes(b"private")
    path = tmp_path / "table"
    MAKE[kind](path)
    with pytest.raises(InputFileError, match=f"table' is a {kind}"), atomic_file(path):
        raise AssertionError("opened")
    with pytest.raises(InputFileError, match=f"table' is a {kind}"):
        read_regular(path)
    assert (tmp_path / "elsewhere").read_bytes() == b"private"
    assert names(tmp_path) == ["elsewhere", "table"]


def test_a_device_is_not_read():
    with pytest.raises(InputFileError, match="is a device"):
        read_regular(Path("/dev/zero"))


def test_files_are_read_up_to_a_size(target):
    assert read_regular(target, most=3) == read_regular(target) == b"old"
    with pytest.raises(DamagedFileError, match="has 3 bytes, more than the 2"):
        read_regular(target, most=2)
    for path in (target / "below", target.parent / "nowhere"):
        with pytest.raises(MissingFileError, match="does not exist"):
            read_regular(path)
    with pytest.raises(InputFileError, match="null"):
        read_regular(target.parent / "a\0b")


def test_a_lock_lets_one_writer_in_and_ends_with_its_process(tmp_path, monkeypatch):
    def hold():
        with locked(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)

    pid = forked(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.001)
    monkeypatch.setattr(files, "LONGEST_WAIT", 0.02)
    with pytest.raises(InputFileError, match="locked by another process"), locked(tmp_path):
        raise AssertionError("entered")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with locked(tmp_path):
        pass
    assert names(tmp_path) == ["held"]
