"""Callbacks are told of every image once, change nothing, and end a prediction if they raise."""

import itertools
import logging
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.callbacks import Callback, LogProgress, Tenths
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.pruners import NoPruning, RacingPruner
from diffusion_classifier.shortlist import HierarchyShortlist

LABELS = ["red digit", "green digit", "blue digit"]
SCENES = load_scenes("test", n_samples=5).images


class Notes(Callback):
    """Keeps what it is told, and raises at one image."""

    def __init__(self, fails_at=None):
        self.starts, self.results, self.ends, self.fails_at = [], [], [], fails_at

    def on_start(self, start):
        self.starts.append(start)

    def on_image(self, result):
        self.results.append(result)
        if len(self.results) == self.fails_at:
            raise RuntimeError("enough")

    def on_end(self, end):
        self.ends.append(end)


def fitted(*callbacks):
    pruner = RacingPruner(max_draws=12)
    clf = DiffusionClassifier(random_state=0, pruner=pruner, batch_size=32, callbacks=callbacks)
    return clf.fit(None, LABELS)


@pytest.mark.parametrize("method", ["predict_proba", "errors"])
def test_every_image_is_told_once_with_its_answer(method):
    notes, plain = Notes(), fitted()
    expected, table = plain.predict_proba(SCENES), plain.errors(SCENES)
    found = getattr(fitted(notes), method)(SCENES)
    if method == "predict_proba":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_array_equal(found.errors, table.errors)
    (start,), (end,) = notes.starts, notes.ends
    assert start.n_images == 5 and start.classes.tolist() == sorted(LABELS)
    assert start.max_evaluations == 3 * plain.pruner_.max_draws
    results = sorted(notes.results, key=lambda result: result.image)
    assert [result.image for result in results] == list(range(5))
    np.testing.assert_array_equal([result.probabilities for result in results], expected)
    assert [result.label for result in results] == plain.predict(table).tolist()
    assert [result.probability for result in results] == expected.max(1).tolist()
    counts = [result.n_evaluations for result in results]
    assert counts == table.n_evaluations.tolist()
    assert (end.n_images, end.n_answered, end.n_skipped, end.error) == (5, 5, 0, None)
    assert end.n_evaluations == sum(counts) and end.seconds > 0


def test_answers_from_a_table_call_nothing_nor_does_fit():
    notes = Notes()
    clf = DiffusionClassifier(
        GaussianBackend(n_timesteps=20), weighting="fitted", random_state=0, callbacks=[notes]
    )
    X = np.random.default_rng(0).normal(size=(30, 2))
    clf.fit(X, np.arange(30) % 2)
    clf.estimate_cost(3)
    assert notes.starts == []
    table = clf.errors(X[:4])
    clf.predict(table)
    assert len(notes.starts) == len(notes.ends) == 1 and len(notes.results) == 4


def test_skipped_images_are_counted():
    notes = Notes()
    images = [SCENES[0], "missing.png", np.full((32, 32, 3), np.nan), SCENES[1]]
    fitted(notes).predict(images, on_error="skip")
    assert sorted(result.image for result in notes.results) == [0, 3]
    assert (notes.ends[0].n_answered, notes.ends[0].n_skipped) == (2, 2)


def test_a_shortlist_races_once_for_callbacks():
    notes = Notes()
    nodes = {
        color: [f"{color} {digit}" for digit in ("three", "five")] for color in ("red", "blue")
    }
    shortlist = HierarchyShortlist(nodes, prompts="a {} digit", k=2)
    clf = DiffusionClassifier(
        random_state=0, pruner=NoPruning(8), shortlist=shortlist, callbacks=[notes]
    )
    clf.fit(None, [label for labels in nodes.values() for label in labels]).predict(SCENES[:2])
    assert len(notes.starts) == 1 and len(notes.results) == 2
    assert len(notes.results[0].probabilities) == 4


def test_what_a_callback_raises_ends_the_prediction():
    first, second = Notes(fails_at=2), Notes()
    with pytest.raises(RuntimeError, match="enough") as caught:
        fitted(first, second).errors(SCENES)
    told = {result.image for result in first.results}  # and their errors are kept
    rows = ~np.isnan(caught.value.partial.errors).all(axis=(1, 2))
    assert set(np.flatnonzero(rows)) == told and len(told) == 2
    assert [len(notes.results) for notes in (first, second)] == [2, 1]
    for notes in (first, second):  # both can close what they opened
        (end,) = notes.ends
        assert end.error is caught.value and end.n_answered == 2


def test_a_function_set_on_a_callback_is_told_of_rounds():
    told, callback = [], Callback()
    callback.on_round = told.append
    fitted(callback).predict(SCENES[:1])
    assert len(told) >= 1 and told[0].image == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_image_that_was_told_is_not_lost(error):
    class Stops(Callback):
        def on_image(self, result):
            raise error("enough")

    with pytest.raises(error) as caught:
        fitted(Stops()).errors(SCENES[:1])
    assert len(caught.value.partial) == 1


def test_only_those_that_started_are_ended():
    class Broken(Notes):
        def on_start(self, start):
            raise RuntimeError("no network")

    first, last = Notes(), Notes()
    with pytest.raises(RuntimeError, match="no network"):
        fitted(first, Broken(), last).predict(SCENES)
    assert len(first.ends) == 1 and last.starts == last.ends == []


def test_clones_share_callbacks_and_saved_classifiers_have_none(tmp_path):
    notes = Notes()
    clf = fitted(notes)
    assert clone(clf).callbacks[0] is notes
    clf.save(tmp_path / "saved")
    loaded = DiffusionClassifier.load(tmp_path / "saved")
    assert loaded.callbacks is None
    np.testing.assert_array_equal(loaded.predict_proba(SCENES), clf.predict_proba(SCENES))
    assert len(notes.results) == 5
    assert isinstance(pickle.loads(pickle.dumps(clf)).callbacks[0], Notes)
    for wrong in ([print], print, [Notes]):
        with pytest.raises(InputValueError, match="callbacks"):
            DiffusionClassifier(callbacks=wrong).fit(None, LABELS)


def test_logs_have_a_line_per_tenth(caplog):
    tenths = Tenths(100)
    assert sum(tenths.line(n) is not None for n in range(1, 101)) == 10
    assert tenths.line(100) is None
    few = Tenths(3)
    assert [line.partition("%")[0] for line in map(few.line, (1, 2, 3))] == ["33", "66", "100"]
    with caplog.at_level(logging.INFO, "my.run"):
        fitted(LogProgress("my.run")).predict(SCENES[:2])
    assert [record.message.partition(" so far")[0].rpartition(",")[0] for record in caplog.records][
        1:3
    ] == ["50%, 1/2 images", "100%, 2/2 images"]
    assert caplog.records[-1].message.startswith("2 of 2 images answered, 0 skipped, ")
    caplog.clear()
    with caplog.at_level(logging.INFO, "my.run"), pytest.raises(RuntimeError):
        fitted(LogProgress(logging.getLogger("my.run")), Notes(fails_at=1)).predict(SCENES)
    assert caplog.records[-1].levelno == logging.WARNING
    assert caplog.records[-1].message.endswith("ended by RuntimeError")
    with pytest.raises(InputValueError, match="level=-1"):
        LogProgress(level=-1)


class Rounds(Callback):
    """Keeps the rounds."""

    def __init__(self):
        self.rounds = []

    def on_round(self, state):
        self.rounds.append(state)


def test_rounds_lead_to_the_answer_and_change_nothing():
    rounds, plain = Rounds(), fitted()
    expected, table = plain.predict_proba(SCENES), plain.errors(SCENES)
    np.testing.assert_array_equal(fitted(rounds).predict_proba(SCENES), expected)
    for image in range(len(SCENES)):
        own = [state for state in rounds.rounds if state.image == image]
        np.testing.assert_array_equal(own[-1].probabilities, expected[image])
        assert own[-1].n_evaluations == table.n_evaluations[image]
        np.testing.assert_array_equal(own[-1].active, table.active[image])
        spent = [state.n_evaluations for state in own]
        assert spent == sorted(set(spent))
        for before, after in itertools.pairwise(own):
            assert (before.active >= after.active).all() and before.n_draws < after.n_draws
        for state in own:
            assert state.probabilities.sum() == pytest.approx(1)
            assert (state.low <= state.probabilities).all()
            assert (state.probabilities <= state.high).all()


def test_rounds_of_candidates():
    rounds = Rounds()
    expected = fitted(rounds).predict_proba(SCENES[:1], candidates=[["red digit", "blue digit"]])
    np.testing.assert_array_equal(rounds.rounds[-1].probabilities, expected[0])
    out = ~np.isin(fitted().classes_, ["red digit", "blue digit"])
    assert all((state.high[out] == 0).all() and state.active.sum() for state in rounds.rounds)


def test_what_a_round_raises_ends_the_race():
    class Stops(Callback):
        def on_round(self, state):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fitted(Stops()).predict(SCENES)
