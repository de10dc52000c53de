"""Tables that are joined, and the probabilities that a table gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.pruners import NoPruning, RacingPruner
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.scoring.calibration import DrawsCalibrator, TemperatureCalibrator

LABELS = ["ant", "bee", "cat"]
MEANS = np.array([[-1.0, 0], [1, 0], [0, 1]])
X = np.random.default_rng(0).normal(size=(12, 2)) * 2


def fitted(labels=LABELS, **options):
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    options = {"pruner": RacingPruner(max_draws=64), "random_state": 0, **options}
    return DiffusionClassifier(backend, batch_size=16, **options).fit(MEANS, labels)


@pytest.fixture(scope="module")
def clf():
    return fitted()


def assert_same(one, other):
    for name in ("errors", "active", "timesteps", "density", "round_of", "antithetic", "skipped"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert one.setup.difference(other.setup) is None


def test_tables_of_parts_make_the_table_of_all_images(clf):
    whole = clf.errors(X)
    parts = [clf.errors(X[i : i + 1]) for i in range(5)] + [clf.errors(X[5:])]
    assert len({part.errors.shape[2] for part in parts}) > 1  # races of different lengths
    joined = ErrorTable.concatenate(parts)
    assert_same(joined, whole)
    np.testing.assert_array_equal(clf.predict_proba(joined), clf.predict_proba(X))
    assert_same(ErrorTable.concatenate(whole[i : i + 1] for i in range(12)), whole)
    assert_same(ErrorTable.concatenate([whole[:0], whole]), whole)


def test_skipped_images_are_counted_on(clf):
    table = clf.errors(X[:3])
    errors, active = table.errors.copy(), table.active.copy()
    errors[1], active[1] = np.nan, False
    table = replace(table, errors=errors, active=active, skipped=((1, "gone"),))
    assert ErrorTable.concatenate([table, table]).skipped == ((1, "gone"), (4, "gone"))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"random_state": 1}, "seed"),
        ({"weighting": "likelihood"}, r"scoring\['weights'\]"),
        ({"priors": [1, 1, 2]}, r"scoring\['log_prior'\]"),
        ({"loss": "l1"}, "loss"),
        ({"labels": ["ant", "bee", "emu"]}, "classes"),
        ({"prompts": "one {}"}, "prompts"),
        ({"pruner": RacingPruner(alpha=0.01, max_draws=64)}, "alpha"),
        ({"sampler": StratifiedSampler(5)}, "timesteps"),
        ({"sampler": StratifiedSampler(4, antithetic=True)}, "timesteps"),
    ],
)
def test_the_first_difference_is_named(clf, options, name):
    tables = [clf.errors(X[:2]), clf.errors(X[2:4]), fitted(**options).errors(X[4:6])]
    with pytest.raises(InputValueError, match=f"table 2 differs from the others in {name}"):
        ErrorTable.concatenate(tables)


def test_tables_of_other_networks_do_not_join(clf):
    table = clf.errors(X[:2])
    other = replace(table, setup=replace(table.setup, made_by={**table.made_by, "name": "other"}))
    with pytest.raises(InputValueError, match=r"table 1 differs .* made_by\['name'\]"):
        ErrorTable.concatenate([table, other])


def test_what_is_no_table_is_refused(clf):
    with pytest.raises(InputTypeError, match=r"tables\[1\] is of type ndarray"):
        ErrorTable.concatenate([clf.errors(X[:1]), X])
    with pytest.raises(InputValueError, match="no tables"):
        ErrorTable.concatenate([])


def test_a_table_gives_probabilities():
    clf = fitted(calibrator=None)
    table = clf.errors(X)
    np.testing.assert_array_equal(table.predict_proba(), clf.predict_proba(X))
    expected = torch.softmax(-table.class_losses(), 1).numpy()  # at temperature 1
    np.testing.assert_allclose(table.predict_proba(), expected)


def test_a_table_gives_the_probabilities_of_a_calibrator(clf):
    table = fitted(pruner=NoPruning(8)).errors(X)
    for calibrator, temperature in ((TemperatureCalibrator(), 2.0), (DrawsCalibrator(), 16.0)):
        slope = 1.0 if isinstance(calibrator, DrawsCalibrator) else 0.0
        with pytest.raises(InputValueError, match="has no temperature"):
            table.predict_proba(calibrator)
        calibrator.log_temperature_ = (np.log(2.0), slope)  # 2 or 2 n, after n = 8 draws
        expected = torch.softmax(-table.class_losses() / temperature, 1).numpy()
        np.testing.assert_allclose(table.predict_proba(calibrator), expected, rtol=1e-6)
