"""Several devices: the same answers as on one, from networks that compute at the same time."""

import threading
import time

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.callbacks import Callback
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import NonFiniteOutputError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner

TWO, LABELS = ["cpu", "cpu"], ["one", "two", "three", "four"]
X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    return load_scenes("test", n_samples=4).images


def digits(device, **options):
    options = {"pruner": RacingPruner(max_draws=12), "random_state": 0, "verbose": 0} | options
    return DiffusionClassifier(device=device, **options).fit(None, LABELS)


def function(network, device=TWO, **options):
    """A classifier of rows [n, 4] whose network is a function."""
    backend = FunctionBackend(
        network, schedule=NoiseSchedule.flow(100), input_shape=(4, 1, 1), input_kind="array"
    )
    options = {"pruner": NoPruning(8), "random_state": 0, "verbose": 0} | options
    return DiffusionClassifier(backend, device=device, **options).fit(None, [0, 1, 2])


def shifted(z, t, condition):
    return z + condition.view(-1, 1, 1, 1)


def test_races_answer_as_on_one_device_bit_by_bit_at_a_fixed_batch_size(images):
    one, two = (digits(device, batch_size=16).errors(images) for device in ("cpu", TWO))
    np.testing.assert_array_equal(two.errors, one.errors)
    np.testing.assert_array_equal(two.active, one.active)


def test_races_answer_as_on_one_device_up_to_rounding(images):
    one, two = (digits(device, pruner=NoPruning(8)).errors(images) for device in ("cpu", TWO))
    np.testing.assert_allclose(two.errors, one.errors, rtol=1e-5)
    assert (digits("cpu").predict(images) == digits(TWO).predict(images)).all()


def test_both_networks_compute_at_the_same_time():
    """Each call waits until the other device is in a call, too."""
    barrier, names = threading.Barrier(2), set()

    def network(z, t, condition):
        barrier.wait(timeout=20)
        names.add(threading.current_thread().name)
        return shifted(z, t, condition)

    found = function(network, batch_size=32).errors(X)
    assert len(names) == 2 and barrier.broken is False
    np.testing.assert_array_equal(found.errors, function(shifted, "cpu").errors(X).errors)


def test_records_candidates_and_memory_work_as_on_one_device(images, tmp_path):
    mask = np.random.default_rng(0).random((4, 4)) < 0.5
    mask[:, 0] = True
    expected = digits("cpu", batch_size=16).errors(images, candidates=mask)
    clf = digits(TWO, batch_size=16, memory=tmp_path)
    for _ in range(2):
        found = clf.errors(images, candidates=mask)
        np.testing.assert_array_equal(found.errors, expected.errors)
    part = digits(TWO, batch_size=16).errors(images[:2])
    found = digits(TWO, batch_size=16).errors(images, table=part)
    np.testing.assert_array_equal(found.errors, digits("cpu", batch_size=16).errors(images).errors)


def test_callbacks_are_called_from_the_callers_thread(images):
    threads, seen = set(), []

    class Note(Callback):
        def on_image(self, result):
            threads.add(threading.current_thread())
            seen.append(result.image)

    digits(TWO, callbacks=[Note()]).predict(images)
    assert threads == {threading.current_thread()} and sorted(seen) == list(range(4))
    assert not [t for t in threading.enumerate() if t.name.startswith("device")]


def test_an_image_at_which_a_network_fails_is_skipped():
    rows = np.where(np.arange(12)[:, None] == 3, 1e30, X)

    def network(z, t, condition):
        return torch.where(z.abs() > 1e20, torch.nan, shifted(z, t, condition))

    with pytest.raises(NonFiniteOutputError, match="image 3"):
        function(network).predict(rows)
    clf = function(network)
    probabilities = clf.predict_proba(rows, on_error="skip")
    assert [image for image, _ in clf.skipped_] == [3]
    assert np.flatnonzero(np.isnan(probabilities).any(1)).tolist() == [3]
    expected = function(shifted, "cpu").predict_proba(X)
    np.testing.assert_allclose(np.delete(probabilities, 3, 0), np.delete(expected, 3, 0), rtol=1e-5)


def test_an_error_on_one_device_stops_the_other():
    calls, both, failed = [], threading.Barrier(2), threading.Event()

    def network(z, t, condition):
        calls.append(len(z))
        if len(calls) <= 2 and both.wait(20) == 0:
            failed.set()
            raise ValueError("broken")
        failed.wait(20)
        time.sleep(0.1)  # the other thread raises meanwhile
        return shifted(z, t, condition)

    with pytest.raises(ValueError, match="broken"):
        function(network, batch_size=8).predict(X)
    assert len(calls) == 2  # of 36


def test_ctrl_c_keeps_what_finished_on_all_devices():
    calls = []

    class Stop(Callback):
        def on_image(self, result):
            calls.append(result.image)
            if len(calls) == 7:
                raise KeyboardInterrupt

    clf = function(shifted, callbacks=[Stop()], batch_size=4)
    with pytest.raises(KeyboardInterrupt) as stopped:
        clf.errors(X)
    assert np.flatnonzero(stopped.value.partial.n_evaluations > 0).tolist() == sorted(calls)
    assert len(calls) == 7


def test_lists_of_devices_are_cloned_saved_and_shown(images, tmp_path):
    clf = digits(TWO)
    assert clone(clf).device == TWO == clf.get_params()["device"]
    assert "'cpu', 'cpu'" in repr(clf) and "cpu" in clf._repr_html_()
    clf.save(tmp_path / "saved")
    loaded = DiffusionClassifier.load(tmp_path / "saved")
    assert list(loaded.device) == TWO
    np.testing.assert_array_equal(loaded.predict(images), clf.predict(images))
    assert clf.estimate_cost(10).evaluations == digits("cpu").estimate_cost(10).evaluations
