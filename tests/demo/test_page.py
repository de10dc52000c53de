"""A visitor's race: the answer of predict_proba, one at a time, stopped when asked."""

import threading

import numpy as np
import pytest
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.demo import Limits, make_page
from diffusion_classifier.demo.live import Stopped, rounds_of
from diffusion_classifier.demo.page import Races

NAMES = ["red seven", "blue seven", "blue three"]
SCENES = load_scenes("test", n_samples=8)
SEVEN = Image.fromarray(SCENES.images[2])  # blue, on black


@pytest.fixture(scope="module")
def clf():
    return DiffusionClassifier(random_state=0).fit(None, NAMES)


def test_the_last_round_is_what_predict_proba_says(clf):
    expected = clf.predict_proba([SEVEN])[0]
    *_, last = rounds_of(clf, SEVEN, threading.Event())
    np.testing.assert_allclose(last.probabilities, expected, rtol=1e-6)
    assert clf.classes_[last.probabilities.argmax()] == "blue seven"


def test_a_race_is_stopped_at_its_next_round(clf):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        list(rounds_of(clf, SEVEN, stop))
    rounds = rounds_of(clf, SEVEN, stop := threading.Event())
    next(rounds)
    rounds.close()  # the visitor has left
    assert stop.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "race"]


def test_a_visitor_sees_the_race_the_map_and_errors(tmp_path):
    path = tmp_path / "seven.png"
    SEVEN.save(path)
    races = Races(DiffusionClassifier(random_state=0), Limits())
    *_, (race, evidence, _) = races.run("v", str(path), "", ",".join(NAMES))
    assert "<b>blue seven</b>" in race and "data:image/png;base64," in evidence
    *_, (race, _, notes) = races.run("v", str(path), "", "red seven, <i>cat</i>")
    assert "&lt;i&gt;cat" in race and "<i>" not in race and "cat" in notes
    path.write_bytes(b"no picture")
    for upload, labels, message in (
        (str(path), "a,b", "cannot be read as an image"),
        (None, "a,b", "choose or draw"),
        (str(path), "a", "at least two labels"),
    ):
        ((race, _, _),) = races.run("v", upload, "", labels)
        assert message.lower() in race.lower() and "role='alert'" in race
    assert races._stops == {}


def test_a_visitor_stops_only_the_own_race(tmp_path):
    path = tmp_path / "seven.png"
    SEVEN.save(path)
    races = Races(DiffusionClassifier(random_state=0), Limits())
    shown = races.run("v", str(path), "", ",".join(NAMES))
    next(shown)
    races.stop("another")
    races.stop("v")
    (*_, (race, evidence, _)) = shown
    assert "Stopped." in race and evidence == ""


def test_one_race_at_a_time_and_a_short_queue():
    page = make_page()
    races = [fn for fn in page.fns.values() if fn.concurrency_id == "race"]
    assert len(races) == 2 and {fn.concurrency_limit for fn in races} == {1}
    assert page._queue.max_size == 16
    assert page.analytics_enabled is False
