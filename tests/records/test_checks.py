"""Fields that cannot be an error table's are refused, wherever they come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.records import ErrorTable, RecordSetup
from diffusion_classifier.scoring import Scoring

NAN, INF = np.nan, np.inf
SETUP = RecordSetup(
    scoring=Scoring(torch.ones(10).double(), torch.zeros(2).double(), torch.tensor([0, 0, 1])),
    schedule=NoiseSchedule.flow(10),
    prediction_type="flow",
    loss="l2",
    classes=np.array(["cat", "dog"]),
    prompts=("a cat", "one cat", "a dog"),
    seed=3,
)


def make(**changes):
    """Two images, three prompts and four draws; the first image's first prompt is dropped."""
    errors = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    errors[0, 0, 2:] = NAN
    active = np.ones((2, 3), bool)
    active[0, 0] = False
    parts = {
        "errors": errors,
        "active": active,
        "timesteps": np.array([1, 1, 9, 0]),
        "density": np.ones(4),
        "round_of": np.array([0, 0, 1, 1]),
        "antithetic": np.array([True, True, False, False]),
        "setup": SETUP,
    }
    for name, change in changes.items():
        parts[name] = change(parts[name].copy()) if callable(change) else change
    return ErrorTable(**parts)


def put(index, value):
    """A function that changes one entry of an array."""

    def change(array):
        array[index] = value
        return array

    return change


def test_a_possible_table_is_accepted():
    table = make()
    assert table.n_draws.tolist() == [[2, 4, 4], [4, 4, 4]] and table.skipped == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors": put((1, 2, 1), NAN)}, r"prompt 2 \('a dog'\), draw 1 is NaN, but that of"),
        ({"errors": put((1, 0, 3), INF)}, r"image 1, prompt 0 \('a cat'\), draw 3 is inf"),
        ({"errors": put((0, 1, 0), -INF)}, r"image 0, prompt 1 \('one cat'\), draw 0 is -inf"),
        ({"errors": put((1, 1, 3), NAN)}, r"prompt 1 .* draw 3 is missing, but an active .* all 4"),
        ({"errors": put((0, 0), NAN)}, r"image 0, prompt 0 .* draw 0 is missing, but every"),
        ({"errors": put(0, NAN)}, "image 0, prompt 0"),
        ({"active": put(1, False)}, "image 1 has no active prompt"),
        ({"density": put(2, 0.0)}, r"density\[2\] is 0.0, but densities must be positive"),
        ({"density": put(1, -1.0)}, r"density\[1\] is -1.0"),
        ({"density": put(1, NAN)}, r"density\[1\] is nan"),
        ({"density": put(0, INF)}, r"density\[0\] is inf"),
        ({"timesteps": put(3, 10)}, r"timesteps\[3\] is 10, but timesteps run from 0 to 9"),
        ({"timesteps": put(2, -1)}, r"timesteps\[2\] is -1"),
        ({"round_of": lambda r: r + 1}, r"round_of\[0\] is 1, but rounds are numbered 0, 1, 2"),
        ({"round_of": put(3, 0)}, r"round_of\[3\] is 0"),
        ({"round_of": put([2, 3], 2)}, r"round_of\[2\] is 2"),
        ({"antithetic": put(1, False)}, r"antithetic\[0\] is True, but .* through a whole round"),
        ({"timesteps": put(1, 2)}, r"antithetic\[0\] is True, but .* the same timestep"),
        ({"timesteps": lambda t: t[:3]}, r"timesteps has shape \(3,\), but .* 4 entries of errors"),
        ({"active": lambda a: a[:1]}, r"active has shape \(1, 3\), but .* 2 entries of errors"),
        ({"errors": lambda e: e[:, :2]}, r"errors has shape \(2, 2, 4\), but there are 3 prompts"),
        ({"errors": lambda e: e[0]}, r"errors has shape \(3, 4\), but needs 3 dimensions"),
        ({"skipped": ((2, "gone"),)}, "skipped names image 2, .* 2 images"),
        ({"skipped": ((0, "gone"),)}, "image 0 was skipped, but prompt 0 has errors"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(changes, message):
    with pytest.raises(InputValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"errors": [[[1.0]]]}, "errors is of type list; give a numpy array of float32"),
        ({"errors": lambda e: np.nan_to_num(e).astype(int)}, "errors is of type int64"),
        ({"active": lambda a: a.astype(float)}, "active is of type float64"),
        ({"timesteps": lambda t: t.astype(np.uint8)}, "timesteps is of type uint8"),  # a mask
        ({"density": torch.ones(4)}, "density is of type torch.float32"),
    ],
)
def test_arrays_of_other_types_are_refused(changes, message):
    with pytest.raises(InputTypeError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": torch.full((10,), torch.nan)}, r"weights\[0\] of scoring is not finite"),
        ({"log_prior": torch.tensor([0.0, -INF])}, r"log_prior\[1\] of scoring is not finite"),
        ({"log_temperature": (0.0, INF)}, r"log_temperature\[1\] of scoring is not finite"),
        ({"class_of": torch.tensor([0, 0, 0])}, r"class_of of scoring must .* \[0, 0, 0\]"),
        ({"class_of": torch.tensor([0, 1, 0])}, r"class_of of scoring must"),
        ({"class_of": torch.tensor([1, 1, 2])}, r"class_of of scoring must"),
        ({"class_of": torch.tensor([-1, 0, 1])}, r"class_of of scoring must"),
    ],
)
def test_a_scoring_without_finite_answers_is_refused(changes, message):
    with pytest.raises(InputValueError, match=message):
        replace(SETUP, scoring=replace(SETUP.scoring, **changes))


def test_a_label_twice_is_refused():
    with pytest.raises(InputValueError, match="holds a label twice"):
        replace(SETUP, classes=np.array(["cat", "cat"]))


def test_prompts_that_race_as_one_class_take_the_same_draws():
    of_mean = replace(SETUP, scoring=replace(SETUP.scoring, reduction="mean"))
    with pytest.raises(InputValueError, match="image 0: prompt 1 did not take the draws"):
        make(setup=of_mean)
    full = make(errors=put(0, 1.0), active=put(0, True), setup=of_mean)
    assert full.is_full


def test_answers_that_overflow_are_an_error():
    weights = torch.full((10,), 1e307, dtype=torch.float64)
    big = replace(SETUP, scoring=replace(SETUP.scoring, weights=weights))
    table = make(errors=lambda e: e * 1e30, setup=big)
    with pytest.raises(
        InputValueError, match=r"the answer for image 0 is NaN.*largest error is 1.2e\+31"
    ):
        table.log_posterior()


def skip_first(reason="unreadable"):
    return make(errors=put(0, NAN), active=put(0, False), skipped=((0, reason),))


def test_skipped_images_have_no_answer():
    table, whole = skip_first(), make()
    posterior = table.log_posterior()
    assert posterior[0].isnan().all() and torch.equal(posterior[1], whole.log_posterior()[1])
    assert table.class_losses()[0].isnan().all()
    certificate = table.certificate
    assert certificate.winner.tolist() == [None, whole.certificate.winner[1]]
    assert certificate.n_draws.tolist() == [0, 4] and not certificate.resolved[0]
    assert np.isnan(certificate.margin[0]) and np.isfinite(certificate.margin[1])
    assert table.n_evaluations.tolist() == [0, 12] and not table.is_full


def test_skipped_images_stay_skipped_in_parts_and_replays():
    table = skip_first("no such file")
    assert table[[1, 0, 1]].skipped == ((1, "no such file"),)
    assert table[1:].skipped == ()
    replayed = table.replay()
    assert replayed.skipped == table.skipped
    np.testing.assert_array_equal(replayed.errors, table.errors)
