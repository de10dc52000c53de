"""A save that is interrupted, however it may be, leaves the earlier one whole."""

import json
import os
import resource
import signal
import time
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from safetensors.torch import load

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianMixtureBackend
from diffusion_classifier.errors import InputFileError
from diffusion_classifier.pruners import NoPruning

FILES = ["classifier.json", "tensors.safetensors"]
OLD, NEW = [["a", "old"], ["a", "new"]]


def classifier(labels):
    backend = GaussianMixtureBackend([[[-1.0]], [[1.0]]], 1.0, n_timesteps=20)
    priors = [1, 2] if labels == OLD else [2, 1]
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), priors=priors, random_state=0)
    return clf.fit(None, labels)


@pytest.fixture(scope="module")
def old():
    return classifier(OLD)


@pytest.fixture(scope="module")
def new():
    return classifier(NEW)


def labels_in(folder):
    """Labels of the saved classifier, which must be whole."""
    clf = DiffusionClassifier.load(folder)
    labels = clf.classes_.tolist()
    assert clf.priors == ([1, 2] if labels == OLD else [2, 1])
    return labels


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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


def test_fifty_kills_at_random_moments_leave_a_whole_save_and_no_leftovers(old, new, tmp_path):
    def save_for_ever(ready):
        new.save(tmp_path)
        os.write(ready, b".")
        while True:
            new.save(tmp_path)
            old.save(tmp_path)

    old.save(tmp_path)
    start = time.perf_counter()
    for _ in range(5):
        new.save(tmp_path)
    pause = (time.perf_counter() - start) / 5
    rng = np.random.default_rng(0)
    seen, left = [], 0
    for _ in range(50):
        started, ready = os.pipe()  # a fork of a large process takes its time to begin
        pid = forked(partial(save_for_ever, ready))
        os.close(ready)
        assert os.read(started, 1) == b"."
        os.close(started)
        time.sleep(rng.uniform(0, 2 * pause))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left += names(tmp_path) != FILES
        seen.append(labels_in(tmp_path))
    assert len(seen) == 50 and all(labels in (OLD, NEW) for labels in seen)
    assert left > 5  # they were killed at work
    new.save(tmp_path)
    assert names(tmp_path) == FILES and labels_in(tmp_path) == NEW


class Interrupt:
    """Let some calls of ``os.fsync`` and ``os.replace`` pass, then raise."""

    def __init__(self, monkeypatch, n_calls, error):
        self.left, self.error = n_calls, error
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, function):
        def call(*args):
            self.left -= 1
            if self.left < 0:
                raise self.error
            return function(*args)

        return call


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_every_step_can_be_interrupted(old, new, tmp_path, error):
    """Also with Ctrl-C, and then again while the next save mends the folder."""
    n_calls, first_new = 0, None
    while True:
        folder = tmp_path / str(n_calls)
        old.save(folder)
        with pytest.MonkeyPatch.context() as patch:
            step = Interrupt(patch, n_calls, error)
            with suppress(KeyboardInterrupt, InputFileError):
                new.save(folder)
            if step.left >= 0:
                break
        assert labels_in(folder) in (OLD, NEW)
        first_new = first_new or (n_calls if labels_in(folder) != OLD else None)
        for again in range(2):
            with pytest.MonkeyPatch.context() as patch:
                Interrupt(patch, again, error)
                with pytest.raises((KeyboardInterrupt, InputFileError)):
                    new.save(folder)
            labels_in(folder)
        new.save(folder)
        assert names(folder) == FILES and labels_in(folder) == NEW
        n_calls += 1
    assert 4 < n_calls < 20 and 0 < first_new < n_calls


def test_a_full_disk_is_an_error_that_names_the_file(old, new, tmp_path):
    old.save(tmp_path)
    size = (tmp_path / FILES[1]).stat().st_size

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))
        with pytest.raises(InputFileError, match=r"spare.safetensors' could not be written"):
            new.save(tmp_path)

    assert os.waitpid(forked(fill), 0)[1] == 0
    assert names(tmp_path) == FILES and labels_in(tmp_path) == OLD


def test_writers_take_turns_and_readers_see_one_of_their_saves(old, new, tmp_path):
    old.save(tmp_path)
    writers = [
        forked(lambda clf=clf: [clf.save(tmp_path) for _ in range(15)]) for clf in (old, new)
    ]
    running, seen = set(writers), set()
    while running:
        seen.add(tuple(labels_in(tmp_path)))
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                assert status == 0
    assert seen <= {tuple(OLD), tuple(NEW)} and len(seen) == 2
    assert names(tmp_path) == FILES


def test_a_reader_between_two_steps_of_a_writer_reads_again(old, new, tmp_path, monkeypatch):
    """The JSON file is read, then both files are replaced."""
    from diffusion_classifier.estimator.saving import files

    read, saved = files._read_state, []

    def slow(path):
        content = read(path)
        if not saved:
            saved.append(new.save(path))
        return content

    old.save(tmp_path)
    monkeypatch.setattr(files, "_read_state", slow)
    assert labels_in(tmp_path) == NEW


def test_a_new_save_has_the_files_of_the_first_release(old, new, tmp_path):
    """Saved once or over another: the JSON file names tensors.safetensors."""
    old.save(tmp_path)
    new.save(tmp_path)
    assert names(tmp_path) == FILES
    state = json.loads((tmp_path / FILES[0]).read_text())
    assert sorted(state["sha256"]) == FILES and state["format_version"] == 1
    assert "fitted._scoring.weights" in load((tmp_path / FILES[1]).read_bytes())
