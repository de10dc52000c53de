"""memory=: errors are looked up first, added afterwards, and the answers stay the same."""

import types

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.errors import InputValueError, NonFiniteOutputError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner, StagedPruner
from diffusion_classifier.samplers import FixedDraws, StratifiedSampler
from diffusion_classifier.store import ErrorStore, memory
from tests.support import stores
from tests.support.stores import CLASSES, X, classifier

NOISE = np.random.default_rng(1).normal(size=(12, 3))
TIMES = [5, 15, 25, 35, 45, 55, 5, 15, 25, 35, 45, 55]


@pytest.fixture
def counter(monkeypatch):
    return stores.counted(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def paid(counter, clf, images=X, **options):
    """Evaluations of a call, whose result is that of a classifier without memory."""
    counter.clear()
    found = clf.errors(images, **options)
    n = int(counter)
    assert stores.same(
        found, clone(clf).set_params(memory=None).fit(None, clf.classes_).errors(images)
    )
    return n


def test_the_second_time_costs_nothing(store, counter):
    clf = classifier(store)
    first = paid(counter, clf)
    assert first == clf.errors(X).n_evaluations.sum()
    assert paid(counter, clf) == 0
    assert paid(counter, clf, X[::-1]) == 0
    counter.clear()
    clf.predict(X), clf.predict_proba(X), clf.decision_function(X), clf.score(X, clf.predict(X))
    assert int(counter) == 0


def test_strategies_share_what_is_there(store, counter):
    full = classifier(store, pruner=NoPruning(32))
    assert paid(counter, full) == len(X) * 3 * 32
    for options in (
        {"pruner": RacingPruner(max_draws=32)},
        {"pruner": StagedPruner((8,), (1,), max_draws=32)},
        {"pruner": NoPruning(9)},
        {"weighting": "likelihood"},
        {"priors": [1, 2, 3]},
        {"prompt_reduction": "mean"},
    ):
        assert paid(counter, classifier(store, **options)) == 0, options


def test_new_labels_and_draws_cost_themselves(store, counter):
    paid(counter, classifier(store, pruner=NoPruning(10)))
    more = classifier(store, labels=CLASSES, pruner=NoPruning(10))
    assert paid(counter, more) == len(X) * 5 * 10
    longer = classifier(store, labels=["b", "h"], pruner=NoPruning(15))
    assert paid(counter, longer) == len(X) * 2 * 5
    assert ErrorStore(store).info().errors == len(X) * (8 * 10 + 2 * 5)


@pytest.mark.parametrize(
    "sampler",
    [
        StratifiedSampler(4, antithetic=True),
        FixedDraws(TIMES, NOISE, round_size=3),
        FixedDraws(TIMES, round_size=4),
    ],
)
def test_antithetic_and_fixed_draws(store, counter, sampler):
    options = {"sampler": sampler, "pruner": StagedPruner((4,), (1,), max_draws=12)}
    assert paid(counter, classifier(store, **options)) > 0
    assert paid(counter, classifier(store, **options)) == 0
    options["pruner"] = NoPruning(12)
    full = paid(counter, classifier(store, **options))
    assert 0 < full < len(X) * 3 * 12
    assert paid(counter, classifier(store, **options)) == 0


def test_draws_that_repeat_are_computed_once_per_race(store, counter):
    sampler = FixedDraws([5, 15, 5, 15], np.tile(NOISE[:2], (2, 1)), round_size=2)
    options = {"sampler": sampler, "pruner": NoPruning(4)}
    assert paid(counter, classifier(store, **options)) == len(X) * 3 * 4
    assert paid(counter, classifier(store, **options)) == 0
    assert ErrorStore(store).info().draws == 2


def test_several_prompts_and_repeated_images(store, counter):
    prompts = {"a": ["a", "c"], "b": ["b", "d", "b"]}
    options = {"labels": ["a", "b"], "prompts": prompts, "pruner": NoPruning(4)}
    clf = classifier(store, **options)
    first = clf.errors(np.tile(X, (2, 1)))
    counter.clear()
    assert stores.same(clf.errors(np.tile(X, (2, 1))), first)
    assert int(counter) == 0
    assert stores.same(first, classifier(None, **options).errors(np.tile(X, (2, 1))))
    assert len(ErrorStore(store)) == len(X)


def test_a_table_and_a_store_are_looked_up_alike(store, counter):
    clf = classifier(store)
    table = classifier().errors(X[:6])
    counter.clear()
    found = clf.errors(X, table=table)
    assert stores.same(found, classifier().errors(X))
    counter.clear()
    clf.errors(X[6:])
    assert int(counter) == 0


def test_fit_cross_validation_and_grids(store, counter):
    y = np.array(["a", "b"])[np.arange(len(X)) % 2]
    clf = classifier(store, labels=["a", "b"], calibrator=None, pruner=NoPruning(8))
    learned = clone(clf).set_params(weighting="fitted")
    learned.fit(X, y)
    n_fit = int(counter)
    assert n_fit == len(X) * 2 * 8
    scores = cross_val_score(learned, X, y, cv=2)
    grid = GridSearchCV(clf, {"weighting": ["uniform", "fitted", "likelihood"]}, cv=2)
    grid.fit(X, y)
    assert int(counter) == n_fit
    without = cross_val_score(clone(learned).set_params(memory=None), X, y, cv=2)
    np.testing.assert_array_equal(scores, without)


def test_errors_are_written_in_the_middle_of_an_image(store, counter, monkeypatch):
    monkeypatch.setattr(memory, "COMMIT_SECONDS", 30)
    clock = types.SimpleNamespace(monotonic=lambda: int(counter))
    monkeypatch.setattr(memory, "time", clock)
    held = []

    def watched(z, t, c):
        held.append(ErrorStore(store).info().errors)
        return stores.predict_noise(z, t, c)

    options = {"labels": CLASSES, "pruner": NoPruning(32)}
    classifier(store, function=watched, **options).errors(X[:1])
    step = 8 * stores.BATCH + 15
    lag = [stores.BATCH * call - n for call, n in enumerate(held)]
    assert max(lag) <= 30 + 2 * step  # 30 rows, a step, and the step that is being computed
    assert len(set(held)) >= 5  # of 256 rows


class Stopping:
    """The toy network, which stops or fails at a given call."""

    def __init__(self, stop_at, error=None):
        self.n_calls, self.stop_at, self.error = 0, stop_at, error

    def __call__(self, z, t, c):
        self.n_calls += 1
        if self.n_calls >= self.stop_at:
            if self.error is None:
                return z * np.nan
            raise self.error
        return stores.predict_noise(z, t, c)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), None, RuntimeError("boom")])
def test_interrupted_runs_keep_what_they_computed(store, counter, error):
    clf = classifier(store, function=Stopping(150, error))
    expected = NonFiniteOutputError if error is None else type(error)
    with pytest.raises(expected) as caught:
        clf.errors(X)
    n_before = int(counter)
    assert n_before > 400
    assert caught.value.partial.n_evaluations.sum() <= n_before
    assert ErrorStore(store).info().errors == n_before
    table = classifier(store).errors(X)
    assert int(counter) == table.n_evaluations.sum()
    assert stores.same(table, classifier().errors(X))


def test_nan_for_one_image_leaves_the_others_theirs(store, counter):
    def nan_for_one(z, t, c):
        return stores.predict_noise(z, t, c).masked_fill(z.abs().amax(1, True) > 1e5, np.nan)

    images = np.concatenate([X, [[1e7, 1e7, 1e7]]])
    with pytest.raises(NonFiniteOutputError, match="image 16"):
        classifier(store, function=nan_for_one).errors(images)
    counter.clear()
    assert stores.same(classifier(store).errors(X), classifier(None).errors(X))
    found = classifier(store, function=nan_for_one).errors(images, on_error="skip")
    assert [image for image, _ in found.skipped] == [16] and "NaN" in found.skipped[0][1]
    assert stores.same(found[:16], classifier(None).errors(X))
    kept = ErrorStore(store).info().errors
    assert kept > 0.8 * classifier(None).errors(X).n_evaluations.sum()


def test_memory_that_runs_out_at_any_batch_costs_no_error(tmp_path, counter):
    """At every tenth batch: it is tried again smaller, and nothing is lost or computed twice."""
    calls, at = 0, None

    def short_of_memory(z, t, c):
        nonlocal calls
        calls += 1
        if calls == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stores.predict_noise(z, t, c)

    scratch = classifier(None).errors(X)
    n_batches = scratch.n_evaluations.sum() // stores.BATCH
    for at in range(1, n_batches, 10):
        calls = 0
        counter.clear()
        clf = classifier(tmp_path / str(at), function=short_of_memory)
        assert stores.same(clf.errors(X), scratch)
        assert int(counter) == scratch.n_evaluations.sum()


def test_skipped_images_have_no_key(store, counter):
    images = X.copy()
    images[3] = np.nan
    clf = classifier(store)
    scratch = classifier().errors(images, on_error="skip")
    for _ in range(2):
        assert stores.same(clf.errors(images, on_error="skip"), scratch)
    assert len(ErrorStore(store)) == len(X) - 1


def test_stored_images_are_not_encoded_again(store):
    encoded = []

    def encode(rows):
        encoded.append(len(rows))
        return rows

    clf = classifier(store)
    clf.backend_.encode = encode
    for on_error in ("raise", "skip"):
        clf.errors(X, on_error=on_error)
        encoded.clear()
        clf.errors(X, on_error=on_error)
        assert sum(encoded) == 8  # one batch, which tells the shape of latents


def test_unreadable_pictures_are_skipped_in_a_stored_set(tmp_path, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    backend = FunctionBackend(
        lambda z, t, c: z / 2, schedule=NoiseSchedule.flow(100), image_size=(16, 16), name="toy"
    )
    options = {"pruner": NoPruning(4), "random_state": 0, "batch_size": 4, "verbose": 0}
    clf = DiffusionClassifier(backend, memory=tmp_path / "store", **options).fit(None, [0, 1])
    images = [Image.fromarray(picture) for picture in pictures]
    images[1:1] = [tmp_path / "missing.png"]
    for _ in range(2):
        table = clf.errors(images, on_error="skip")
        assert [image for image, _ in table.skipped] == [1]
        assert (~np.isnan(table.errors)).sum() == 3 * 2 * 4
    assert len(ErrorStore(tmp_path / "store")) == 3


def test_clones_share_the_folder_and_saves_do_not_hold_it(store, tmp_path):
    clf = classifier(store)
    assert clone(clf).memory == store
    clf.save(tmp_path / "saved")
    assert DiffusionClassifier.load(tmp_path / "saved", backend=clf.backend_).memory is None
    clf.set_params(memory=None).predict(X)
    assert not store.exists()
    with pytest.raises(InputValueError, match="memory=3 must be a str"):
        classifier(3)


def test_an_estimate_of_cost_leaves_no_trace(store):
    clf = classifier(store).fit(X, np.resize(["a", "b", "c"], len(X)))
    assert clf.estimate_cost(10).evaluations == 10 * 3 * 32
    assert not store.exists()


def test_batches_of_another_size_and_other_answers_agree(store, counter):
    classifier(store, batch_size=4).errors(X)
    counter.clear()
    found = classifier(store, batch_size="auto").errors(X)
    assert int(counter) == 0
    assert stores.same(found, classifier(batch_size=4).errors(X))
