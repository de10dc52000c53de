"""Damaged, foreign, older and newer files of a store: no wrong answer, and a message."""

import shutil
import sqlite3
import warnings

import numpy as np
import pytest

from diffusion_classifier.errors import MissingFileError, NotAFolderError, StoreError
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.store import ErrorStore, database, folder
from diffusion_classifier.store.schema import SCHEMAS, empty_file
from tests.support import stores

N_TRIALS = 200
X = stores.X[:4]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(folder, "_SECONDS_BETWEEN_TRIES", 0)


def classifier(store=None, **options):
    return stores.classifier(store, pruner=NoPruning(8), **options)


@pytest.fixture(scope="module")
def scratch():
    return classifier().errors(X)


@pytest.fixture
def store(tmp_path):
    """A store of one file."""
    classifier(tmp_path / "store").errors(X)
    return tmp_path / "store"


def only_file(store):
    (path,) = store.glob("errors-*.sqlite")
    return path


def damaged(data, rng):
    """Truncate or overwrite a file's content at random."""
    data = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:  # a few bits
        for place in rng.integers(len(data), size=rng.integers(1, 4)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 2:  # bytes
        for place in rng.integers(len(data), size=rng.integers(1, 50)):
            data[place] = rng.integers(256)
    else:  # a part of a page that was not written
        start = rng.integers(len(data))
        data[start : start + 512] = bytes(len(data[start : start + 512]))
    return data


def test_200_damaged_stores_give_no_wrong_answer(store, scratch, tmp_path, monkeypatch):
    counter, rng = stores.counted(monkeypatch), np.random.default_rng(0)
    path = only_file(store)
    clf = classifier()
    n_set_aside = n_salvaged = 0
    for trial in range(N_TRIALS):
        copy = tmp_path / f"{trial}"
        copy.mkdir()
        (copy / path.name).write_bytes(damaged(path.read_bytes(), rng))
        clf.set_params(memory=copy)
        counter.clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = clf.errors(X)
        assert stores.same(table, scratch), trial
        n_warned = sum("is damaged" in str(warning.message) for warning in caught)
        n_set_aside += n_warned
        n_salvaged += n_warned and int(counter) < scratch.n_evaluations.sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ErrorStore(copy).verify()
            assert stores.same(clf.errors(X), scratch), trial
            assert ErrorStore(copy).verify().damaged == [], trial
        shutil.rmtree(copy)
    assert n_set_aside > N_TRIALS // 4
    assert n_salvaged > 5


def test_a_damaged_row_is_named_and_the_sound_ones_are_kept(store, scratch, monkeypatch):
    path = only_file(store)
    with sqlite3.connect(path) as connection:
        (blob,) = connection.execute("SELECT errors FROM errors WHERE prompt = 4").fetchone()
        wrong = bytes([blob[0] ^ 1]) + blob[1:]
        connection.execute("UPDATE errors SET errors = ? WHERE errors = ?", (wrong, blob))
    connection.close()
    counter = stores.counted(monkeypatch)
    with pytest.warns(UserWarning, match=rf"{path.name}.*checksum.*11 sound rows"):
        table = classifier(store).errors(X)
    assert stores.same(table, scratch)
    assert int(counter) == 8  # one image, one prompt
    with pytest.warns(UserWarning, match="is damaged"):
        shutil.copy(next(store.glob("*.damaged-*")), path)
        assert ErrorStore(store).verify().damaged == [path.name]
    assert ErrorStore(store).verify() == (12 * 8, [])


def test_a_newer_format_is_refused(store):
    path = only_file(store)
    path.rename(path.with_name(path.name.replace("-v1-", "-v7-")))
    with pytest.raises(StoreError, match=r"has format 7, but this release reads formats up to 1"):
        classifier(store).predict(X)
    with pytest.raises(StoreError, match="upgrade diffusion_classifier"):
        ErrorStore(store)


def test_an_older_format_is_converted(store, scratch, monkeypatch):
    new = only_file(store)
    old = new.with_name(new.name.replace("-v1-", "-v0-"))
    old.write_bytes(empty_file(0))
    connection = sqlite3.connect(old, isolation_level=None)
    connection.execute("ATTACH ? AS new", (str(new),))
    connection.execute("INSERT INTO contents SELECT * FROM new.contents")
    connection.execute("INSERT INTO images SELECT * FROM new.images")
    columns = "network, image, prompt, tape, start, size, errors"
    connection.execute(f"INSERT INTO main.errors SELECT {columns} FROM new.errors")
    connection.close()
    new.unlink()
    counter = stores.counted(monkeypatch)
    assert stores.same(classifier(store).errors(X), scratch)
    assert int(counter) == 0
    assert ErrorStore(store).verify() == (scratch.n_evaluations.sum(), [])
    assert len(list(store.glob("*-v0-*.converted-*"))) == 1


def test_files_of_others_are_not_touched(store, scratch):
    stranger = store / "errors-v1-stranger.sqlite"
    connection = sqlite3.connect(stranger)
    connection.execute("CREATE VIEW errors AS SELECT 1")
    connection.commit()
    connection.close()
    (store / "notes.txt").write_text("mine")
    (store / "errors-v1-link.sqlite").symlink_to(store / "notes.txt")
    with pytest.warns(UserWarning, match=r"stranger.sqlite' is damaged \(its header was changed\)"):
        assert stores.same(classifier(store).errors(X), scratch)
    assert (store / "notes.txt").read_text() == "mine"
    assert (store / "errors-v1-link.sqlite").is_symlink()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotAFolderError, match="is a file; pass a folder"):
        classifier(tmp_path / "file").predict(X)


def test_a_locked_file_counts_as_absent(store, scratch, monkeypatch):
    monkeypatch.setattr(database, "_SECONDS_TO_READ", 0)
    lock = sqlite3.connect(only_file(store), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(folder, "_OWN_FILES", {})  # another process
    counter = stores.counted(monkeypatch)
    assert stores.same(classifier(store).errors(X), scratch)
    assert int(counter) == scratch.n_evaluations.sum()
    lock.close()
    counter.clear()
    assert stores.same(classifier(store).errors(X), scratch)
    assert int(counter) == 0


def test_a_writer_does_not_wait_for_a_reader(store, scratch, monkeypatch):
    monkeypatch.setattr(database, "_SECONDS_TO_WRITE", 0)
    reader = sqlite3.connect(only_file(store), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM errors").fetchone()
    classifier(store).errors(X + 1)  # goes on in a file of its own
    assert len(list(store.glob("errors-*.sqlite"))) == 2
    reader.close()
    assert len(ErrorStore(store)) == 2 * len(X)


def test_a_process_whose_own_file_is_locked_goes_on_in_another(store, monkeypatch):
    monkeypatch.setattr(database, "_SECONDS_TO_WRITE", 0)
    monkeypatch.setattr(database, "_SECONDS_TO_READ", 0)
    lock = sqlite3.connect(only_file(store), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    classifier(store).errors(X + 1)
    lock.close()
    assert len(list(store.glob("errors-*.sqlite"))) == 2
    assert len(ErrorStore(store)) == 2 * len(X)


def test_a_network_removed_by_another_process_is_added_again(store, scratch):
    own = folder.StoreFolder(store)
    file = own.open(only_file(store))
    rows = list(file.rows())
    keys = {key for row in rows for key in (row.network, row.prompt, row.tape)}
    contents = [file.content(key) for key in keys]
    own.add(contents, rows)  # the writer now knows the ids
    ErrorStore(store).prune(model="toy network")
    assert ErrorStore(store).info().errors == 0
    own.add(contents, rows)
    own.close()
    assert ErrorStore(store).verify() == (scratch.n_evaluations.sum(), [])


def test_a_full_disk_while_a_file_is_set_aside_loses_none_of_its_rows(store, scratch, monkeypatch):
    path = only_file(store)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE errors SET crc = crc + 1 "
            "WHERE (image, prompt) = (SELECT image, prompt FROM errors LIMIT 1)"
        )
    connection.close()

    def full(self, contents, rows):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(folder.StoreFolder, "add", full)
        with pytest.warns(UserWarning, match="could not be set aside"):
            ErrorStore(store).verify()
    assert path.exists()
    with pytest.warns(UserWarning, match="11 sound rows of it were kept"):
        assert stores.same(classifier(store).errors(X), scratch)


def test_merging_says_what_is_wrong_with_the_other_store(store, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_SECONDS_TO_READ", 0)
    target = ErrorStore(tmp_path / "target")
    with pytest.raises(MissingFileError, match="there is no store"):
        target.merge(tmp_path / "typo")
    path = only_file(store)
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="in use by another process"):
        target.merge(store)
    lock.close()
    with open(path, "r+b") as file:
        file.truncate(3000)
    with pytest.warns(UserWarning, match=r"damaged rows, which were left out"):
        assert target.merge(store) == 0


def test_a_file_that_others_set_aside_is_replaced(store, monkeypatch):
    path = only_file(store)
    path.rename(path.with_name("elsewhere"))
    counter = stores.counted(monkeypatch)
    classifier(store).errors(X)
    assert int(counter) == len(X) * 3 * 8
    assert only_file(store) != path


def test_schemas_differ_in_the_checksum_only():
    assert SCHEMAS[0]["errors"] != SCHEMAS[1]["errors"].replace("crc INTEGER NOT NULL, ", "x")
    assert SCHEMAS[0]["errors"] == SCHEMAS[1]["errors"].replace("crc INTEGER NOT NULL, ", "")
