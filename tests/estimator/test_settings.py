"""Parameters take effect with fit, as everywhere in scikit-learn; two do at once."""

import numpy as np
import pytest
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, GaussianBackend
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import FixedDraws
from tests.support.pipelines import tiny_sd

LABELS = ["cat", "dog"]
# Twice as wide as the model's.
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backend():
    return DiffusersBackend(tiny_sd())


@pytest.fixture
def clf(backend):
    clf = DiffusionClassifier(backend, pruner=NoPruning(8), random_state=0)
    return clf.fit(None, LABELS)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "l1"},
        {"weighting": "exponential"},
        {"pruner__max_draws": 1},
        {"pruner": StagedPruner((4,), (1,), max_draws=8)},
        {"sampler": FixedDraws([500])},
        {"prompts": "one {}"},
        {"prompt_reduction": "mean"},
        {"priors": [0.9, 0.1]},
        {"image_size": 8},
        {"resize": "squash"},
        {"random_state": 7},
        {"backend": GaussianBackend()},
        {"calibrator": "temperature"},
        {"n_fit_images": 1},
        {"device": "nowhere", "dtype": "int3"},
    ],
    ids=lambda change: "-".join(change),
)
def test_predict_uses_what_fit_saw(clf, change):
    before = clf.predict_proba(IMAGES)
    table, latents = clf.errors(IMAGES), clf.encode(IMAGES)
    clf.set_params(**change)
    np.testing.assert_array_equal(clf.predict_proba(IMAGES), before)
    np.testing.assert_array_equal(clf.errors(IMAGES).errors, table.errors)
    np.testing.assert_array_equal(clf.predict_proba(table), before)
    np.testing.assert_array_equal(clf.encode(IMAGES).values, latents.values)
    np.testing.assert_array_equal(clf.predict_proba(latents), before)
    if not {"device", "backend", "n_fit_images", "calibrator"} & set(change):
        again = clf.fit(None, LABELS).predict_proba(IMAGES)
        assert (change == {"prompt_reduction": "mean"}) == np.array_equal(again, before)


def test_latents_for_another_size_come_from_an_unfitted_clone(clf):
    clf.set_params(image_size=8)
    with pytest.raises(ValueError, match=r"image_size=\[16, 16\].*with an unfitted clone\(clf\)"):
        clf.fit(clf.encode(IMAGES), [*LABELS, "cat"])
    latents = clone(clf).encode(IMAGES)
    assert clf.fit(latents, [*LABELS, "cat"]).predict(latents).shape == (3,)


def test_batch_size_and_verbose_take_effect_at_once(clf, capsys):
    calls, forward = [], clf.backend_.forward
    clf.backend_.forward = lambda z, *args: calls.append(len(z)) or forward(z, *args)
    clf.set_params(batch_size=3, verbose=1).predict(IMAGES)
    assert set(calls) == {3} and "evaluations" in capsys.readouterr().err


def test_a_save_keeps_what_fit_saw(clf, tmp_path):
    before = clf.predict_proba(IMAGES)
    clf.set_params(loss="l1", resize="pad", image_size=8, pruner=None).save(tmp_path)
    loaded = DiffusionClassifier.load(tmp_path, backend=clf.backend)
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), before)
    assert loaded.loss == "l1" and loaded.loss_ == "l2"
