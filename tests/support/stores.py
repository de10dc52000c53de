"""Stores of a toy network, and runs of them in processes that are killed or limited.

``python -m tests.support.stores`` makes these runs and prints what became of them as JSON. They are
forked from a process of its own, which has one thread.
"""

import json
import mmap
import os
import resource
import signal
import stat
import struct
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.errors import StoreError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import RacingPruner
from diffusion_classifier.race.progress import Progress
from diffusion_classifier.store import ErrorStore, folder, memory
from diffusion_classifier.store.database import Database

CLASSES = ["a", "b", "c", "d", "e", "f", "g", "h"]
X = np.random.default_rng(0).normal(size=(16, 3)) * np.tile([3, 8], 8)[:, None]
N_KILLS = 20
WINDOW = 90  # rows: the clock of these runs counts rows
BATCH = 4
MOST_ROWS_PER_STEP = 37  # 8 batches, and less than a round of 3 prompts and 2 draws


def predict_noise(z, t, c):
    return z * c[:, None] / 2


def classifier(store=None, labels=("a", "b", "c"), function=predict_noise, **options):
    backend = FunctionBackend(
        function,
        schedule=NoiseSchedule.flow(100),
        classes=CLASSES,
        input_kind="array",
        name="toy network",
    )
    options = {
        "pruner": RacingPruner(max_draws=32),
        "random_state": 0,
        "batch_size": BATCH,
        "verbose": 0,
        "memory": store,
        **options,
    }
    return DiffusionClassifier(backend, **options).fit(None, list(labels))


class Counter:
    """Number of evaluations of all processes that were forked since it was made."""

    def __init__(self):
        self._shared = mmap.mmap(-1, 8)

    def __int__(self):
        return struct.unpack("<q", self._shared[:8])[0]

    def clear(self):
        self._shared[:8] = bytes(8)

    def add(self, n):
        self._shared[:8] = struct.pack("<q", int(self) + n)


def counted(monkeypatch=None):
    """Count evaluations, without those that only pad batches."""
    counter, add = Counter(), Progress.add_evaluations

    def add_evaluations(self, n):
        counter.add(n)
        add(self, n)

    if monkeypatch is None:
        Progress.add_evaluations = add_evaluations
    else:
        monkeypatch.setattr(Progress, "add_evaluations", add_evaluations)
    return counter


def forked(run):
    """Run a function in a forked process, and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            code = run()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            code = 99
        os._exit(code or 0)
    return os.waitpid(child, 0)[1]


def same(one, other):
    return np.array_equal(one.errors, other.errors, equal_nan=True) and np.array_equal(
        one.active, other.active
    )


# ------------------------------------------------------------------ killed runs


def kill_at_event(store, number):
    """Kill the process at a given call of a Python or C function during its race."""

    def run():
        count = 0

        def at_event(frame, event, argument):
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        clf = classifier(store)
        sys.setprofile(at_event)
        clf.errors(X)

    return forked(run)


def count_events():
    count = 0

    def at_event(frame, event, argument):
        nonlocal count
        count += 1

    clf = classifier(tempfile.mkdtemp())
    sys.setprofile(at_event)
    clf.errors(X)
    sys.setprofile(None)
    return count


def kill_while_writing(store, number):
    """Kill the process from outside, as soon as it starts to write for the nth time."""
    reading, writing = os.pipe()
    add = Database.add

    def telling(self, *content):
        os.write(writing, b".")
        add(self, *content)

    child = os.fork()
    if child == 0:
        Database.add = telling
        classifier(store).errors(X)
        os._exit(0)
    os.close(writing)
    while number and os.read(reading, 1):
        number -= 1
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    return os.waitpid(child, 0)[1]


def killed_runs(counter):
    rng = np.random.default_rng(0)
    memory.time = types.SimpleNamespace(monotonic=lambda: int(counter))
    memory.COMMIT_SECONDS = WINDOW
    scratch = classifier().errors(X)
    n_scratch = int(scratch.n_evaluations.sum())
    n_events = count_events()
    results = []
    for number in range(N_KILLS):
        store = tempfile.mkdtemp()
        counter.clear()
        if number % 2:
            status = kill_at_event(store, int(rng.integers(1, n_events)))
        else:
            status = kill_while_writing(
                store, int(rng.integers(1, n_scratch // (WINDOW + MOST_ROWS_PER_STEP)))
            )
        n_before = int(counter)
        resumed = classifier(store).errors(X)
        results.append(
            {
                "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
                "before": n_before,
                "again": int(counter) - n_scratch,
                "same": same(resumed, scratch),
                "images": len(ErrorStore(store)),
                "sound": ErrorStore(store).verify().damaged == [],
            }
        )
    return results


# ------------------------------------------------------------------ several processes


def processes_at_once(counter, n_processes):
    """Let several processes ask for the same errors in one store, all at once."""
    store = tempfile.mkdtemp()
    scratch = classifier().errors(X)

    def run(n):
        order = np.roll(np.arange(len(X)), 3 * n)
        return not same(classifier(store).errors(X[order]), scratch[order])

    children = []
    for n in range(n_processes):
        child = os.fork()
        if child == 0:
            try:
                os._exit(run(n))
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(99)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    counter.clear()
    again = same(classifier(store).errors(X), scratch)
    return {
        "codes": codes,
        "again": int(counter),
        "same": again,
        "images": len(ErrorStore(store)),
        "sound": ErrorStore(store).verify().damaged == [],
    }


# ------------------------------------------------------------------ full disks, read-only folders


def full_disk(counter):
    """Run out of room in the middle of a race."""
    store = tempfile.mkdtemp()
    memory.COMMIT_SECONDS = 0
    report = mmap.mmap(-1, 4096)

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (45_000, 45_000))
        try:
            classifier(store).errors(np.tile(X, (40, 1)) + np.arange(40).repeat(16)[:, None] / 64)
        except StoreError as error:
            held = 0 if error.partial is None else int((error.partial.n_evaluations > 0).sum())
            text = json.dumps({"message": str(error), "partial": held})
            report[: len(text)] = text.encode()

    status = forked(run)
    result = json.loads(report[:].rstrip(b"\0") or b"{}")
    counter.clear()
    table = classifier(store).errors(X)
    kept = int(table.n_evaluations.sum()) - int(counter)
    return {**result, "status": status, "kept": kept, "same": same(table, classifier().errors(X))}


def read_only(counter):
    """Ask a store that may be read but not written, as another user."""
    store = Path(tempfile.mkdtemp())
    scratch = classifier(store).errors(X)
    for path in store.iterdir():
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    store.chmod(0o555)
    counter.clear()

    def as_nobody(run):
        def start():
            if os.getuid() == 0:
                os.setuid(65534)
            return run()

        return forked(start)

    def known():
        return not same(classifier(store).errors(X), scratch)

    def unknown():
        try:
            classifier(store).errors(X + 1)
        except StoreError:
            return 7
        return 1

    statuses = [os.waitstatus_to_exitcode(as_nobody(run)) for run in (known, unknown)]
    store.chmod(0o755)
    return {"statuses": statuses, "evaluations": int(counter)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder._SECONDS_BETWEEN_TRIES = 0
    counter = counted()
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)  # another user reads a store in it
        tempfile.tempdir = parent
        outcome = {
            "killed": killed_runs(counter),
            "two": processes_at_once(counter, 2),
            "eight": processes_at_once(counter, 8),
            "full": full_disk(counter),
            "read_only": read_only(counter),
        }
    print(json.dumps(outcome))
