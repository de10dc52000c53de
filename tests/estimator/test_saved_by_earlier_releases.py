"""What earlier releases wrote is read, and answers as it did then."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.pruners import RacingPruner, StagedPruner

FOLDER = Path(__file__).parents[1] / "data" / "saved_by_0_1_0"
ANSWERS = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
ROWS = np.array(ANSWERS["rows"])
SCENES = load_scenes("test", n_samples=4).images
INPUTS = {
    "learned": ROWS,  # Gaussian classes; sampler, weights, pruner and temperature learned
    "mixture": ROWS[:, :1],  # a given mixture; integer labels, several prompts
    "embedded": SCENES,  # the embedded model, by default
    "origin": SCENES.reshape(4, -1),  # the embedded model, given as a backend, with flattened rows
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_saved_classifier_answers_as_it_did(name):
    clf = DiffusionClassifier.load(FOLDER / name)
    np.testing.assert_allclose(clf.predict_proba(INPUTS[name]), ANSWERS[name], atol=1e-5)


def test_what_was_learned_is_still_there():
    clf = DiffusionClassifier.load(FOLDER / "learned")
    assert isinstance(clf.pruner_, RacingPruner) and clf.pruner_.deviation_ > 0
    assert clf.weighting_.weights_.shape == clf.sampler_.proposal_.shape == (1000,)
    assert clf.calibrator_.log_temperature_ != (0.0, 0.0)
    np.testing.assert_allclose(clf.errors(ROWS).scoring.log_prior.exp(), [0.2, 0.3, 0.5])


def test_a_table_is_read_and_replayed_as_it_was():
    table = ErrorTable.from_parquet(FOLDER / "errors.parquet")
    np.testing.assert_allclose(table.log_posterior().exp(), ANSWERS["table"], atol=1e-6)
    replayed = table.replay(StagedPruner(n_draws=(8,), keep=(2,), max_draws=40))
    np.testing.assert_allclose(replayed.log_posterior().exp(), ANSWERS["replay"], atol=1e-6)
    clf = DiffusionClassifier.load(FOLDER / "learned")
    np.testing.assert_allclose(clf.predict_proba(table), ANSWERS["table"], atol=1e-6)
