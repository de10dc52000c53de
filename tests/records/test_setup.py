"""What all rows of a record share: one value, checked once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, RacingPruner
from diffusion_classifier.records import RecordSetup
from diffusion_classifier.records.setup import promised_alpha
from diffusion_classifier.scoring import Scoring

SCORING = Scoring(torch.ones(10).double(), torch.zeros(2).double(), torch.tensor([0, 0, 1]))
SETUP = RecordSetup(
    scoring=SCORING,
    schedule=NoiseSchedule.flow(10),
    prediction_type="flow",
    loss="l2",
    classes=np.array(["cat", "dog"]),
    prompts=("a cat", "one cat", "a dog"),
    seed=3,
    made_by={"name": "model", "loss": "l2"},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ("a cat", "a dog")}, "2 prompts, but scoring has 3"),
        ({"classes": np.arange(3)}, "3 classes, but scoring has 2"),
        ({"schedule": NoiseSchedule.flow(9)}, "9 timesteps, but scoring has 10"),
        ({"loss": "l3"}, "loss='l3' is not known"),
        ({"prediction_type": "noise"}, "prediction_type='noise' is not known"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SETUP, **change)


def test_json_gives_the_same_setup():
    read = RecordSetup.from_json(SETUP.to_json())
    for name in ("weights", "log_prior", "class_of"):
        assert torch.equal(getattr(read.scoring, name), getattr(SCORING, name))
    assert torch.equal(read.schedule.sigma, SETUP.schedule.sigma)
    assert read.classes.tolist() == ["cat", "dog"] and read.classes.dtype == SETUP.classes.dtype
    for name in ("prediction_type", "loss", "prompts", "seed", "made_by"):
        assert getattr(read, name) == getattr(SETUP, name)
    assert np.isnan(read.alpha)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ("a cat", "one cat", "a hound")}, "this classifier was fitted with"),
        ({"classes": np.array(["cat", "hound"])}, "this classifier was fitted with"),
        ({"made_by": {"name": "other", "loss": "l2"}}, "name='model', this classifier has 'other'"),
    ],
)
def test_a_record_of_other_questions_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SETUP.check_answers(replace(SETUP, **change), under_its_weights=False)


def test_weights_matter_only_to_pruned_records():
    other = replace(SETUP, scoring=replace(SCORING, weights=2 * SCORING.weights))
    SETUP.check_answers(other, under_its_weights=False)
    with pytest.raises(ValueError, match=r"pruned under weights other than"):
        SETUP.check_answers(other, under_its_weights=True)


def test_only_racing_promises_an_error_probability():
    assert promised_alpha(RacingPruner(alpha=0.01)) == 0.01
    assert np.isnan(promised_alpha(NoPruning()))
