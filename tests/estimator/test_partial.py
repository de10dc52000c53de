"""Runs that are interrupted keep the images that finished, and go on from there."""

import dataclasses

import numpy as np
import pytest

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.errors import NonFiniteOutputError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner

X = np.random.default_rng(0).normal(size=(24, 3)) * np.tile([3, 8], 12)[:, None]
LABELS = ["a", "b", "c"]


class Network:
    """A network that counts its rows and stops at a given call."""

    def __init__(self):
        self.n_rows, self.n_calls, self.stop_at, self.error = 0, 0, None, KeyboardInterrupt()

    def __call__(self, z, t, c):
        self.n_calls += 1
        if self.n_calls == self.stop_at:
            raise self.error
        self.n_rows += len(z)
        return z * c[:, None] / 2


@pytest.fixture
def network():
    return Network()


def fitted(network, **options):
    backend = FunctionBackend(
        network, schedule=NoiseSchedule.flow(100), classes=LABELS, input_kind="array"
    )
    options = {"pruner": RacingPruner(max_draws=32), "random_state": 0, "batch_size": 4, **options}
    return DiffusionClassifier(backend, verbose=0, **options).fit(X, np.resize(LABELS, len(X)))


def interrupted(clf, network, stop_at, error=None, **options):
    """Stop a run at a call of the network, and return the table of its finished images."""
    network.n_rows = network.n_calls = 0
    if stop_at < 1:  # a share of all calls
        clf.errors(X, **options)
        stop_at = int(network.n_calls * stop_at)
        network.n_calls = 0
    network.stop_at, network.error = stop_at, error or KeyboardInterrupt()
    with pytest.raises(type(network.error)) as caught:
        clf.errors(X, **options)
    network.stop_at = None
    network.n_rows = 0
    return caught.value.partial


def assert_same(one, other):
    for field in dataclasses.fields(one):
        if field.name != "setup":
            np.testing.assert_array_equal(
                getattr(one, field.name), getattr(other, field.name), field.name
            )
    assert one.setup.difference(other.setup) is None


@pytest.mark.parametrize("stop_at", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("full", [False, True])
def test_ctrl_c_keeps_what_was_paid_for(network, stop_at, full):
    clf = fitted(network)
    whole = clf.errors(X, full=full)
    partial = interrupted(clf, network, stop_at, full=full)
    finished = np.setdiff1d(np.arange(len(partial)), [image for image, _ in partial.skipped])
    assert 0 < len(finished) < 24
    n_draws = partial.errors.shape[2]
    np.testing.assert_array_equal(partial.errors[finished], whole.errors[finished, :, :n_draws])
    assert np.isnan(whole.errors[finished, :, n_draws:]).all()
    assert {reason for _, reason in partial.skipped} <= {"its race did not end"}

    assert_same(clf.errors(X, full=full, table=partial), whole)
    n_missing = whole.n_evaluations.sum() - partial.n_evaluations.sum()
    assert n_missing <= network.n_rows < 1.2 * n_missing + 32  # the last batch of a step is filled


def test_any_error_carries_the_finished_images(network):
    clf = fitted(network, pruner=NoPruning(16))
    partial = interrupted(clf, network, 0.6, RuntimeError("the device was lost"))
    np.testing.assert_array_equal(partial.errors, clf.errors(X[: len(partial)]).errors)
    assert 0 < len(partial) < 24 and partial.skipped == ()
    bad = X.copy()
    bad[20] = 1e38  # overflows in the network
    with pytest.raises(NonFiniteOutputError) as caught:
        clf.errors(bad)
    assert 0 < len(caught.value.partial) <= 20


def test_nothing_finished_is_no_table(network):
    clf = fitted(network)
    assert interrupted(clf, network, 1) is None
    with pytest.raises(ValueError) as caught:
        clf.errors(X[:, :2])
    assert caught.value.partial is None


def test_a_second_interruption_does_not_lose_the_first_part(network):
    clf = fitted(network)
    first = interrupted(clf, network, 0.3)
    second = interrupted(clf, network, 2, table=first)
    assert_same(second, first)
    third = interrupted(clf, network, 0.6, table=second)
    assert third.n_evaluations.sum() > first.n_evaluations.sum()
    assert_same(clf.errors(X, table=third), clf.errors(X))


def test_a_table_of_the_first_images_is_continued(network):
    clf = fitted(network)
    table = clf.errors(X[:10])
    network.n_rows = 0
    extended = clf.errors(X, table=table)
    assert_same(extended, clf.errors(X))
    np.testing.assert_array_equal(
        np.nan_to_num(extended.errors[:10, :, : table.errors.shape[2]]), np.nan_to_num(table.errors)
    )
    with pytest.raises(ValueError, match="the table holds 10 images, but X holds 9"):
        clf.errors(X[:9], table=table)


def test_unfinished_images_have_no_answer(network):
    clf = fitted(network)
    partials = (interrupted(clf, network, calls) for calls in range(300, 400, 10))
    partial = next(p for p in partials if p.skipped)  # later images finished before earlier ones
    image = partial.skipped[0][0]
    assert partial.log_posterior()[image].isnan().all()
    with pytest.raises(ValueError, match=f"no errors of .* image {image}"):
        clf.predict(partial)
    np.testing.assert_array_equal(
        clf.predict_proba(partial, on_error="skip")[-1], clf.predict_proba(X)[len(partial) - 1]
    )
