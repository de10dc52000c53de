"""Encoding once: latents stand in for images, and only where they belong."""

import pickle

import numpy as np
import pytest
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.utils import _safe_indexing

from diffusion_classifier import DiffusionClassifier, Latents
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend, GaussianBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import tiny_sd

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
Y = np.array(["cat", "dog"])[np.arange(11) % 2]
OPTIONS = {"pruner": NoPruning(4), "random_state": 0, "batch_size": 8}


@pytest.fixture(scope="module")
def backend():
    return DiffusersBackend(tiny_sd())


@pytest.fixture
def clf(backend):
    return DiffusionClassifier(backend, **OPTIONS)


def spy_on_encoding(monkeypatch):
    """Numbers of images of every call."""
    calls = []
    encode = DiffusersBackend.encode_images

    def counted(self, images):
        calls.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(DiffusersBackend, "encode_images", counted)
    return calls


def test_latents_answer_to_the_bit_as_their_images(clf):
    latents = clf.encode(IMAGES)
    fitted = clf.fit(None, ["cat", "dog"])
    np.testing.assert_array_equal(fitted.predict_proba(latents), fitted.predict_proba(IMAGES))
    np.testing.assert_array_equal(fitted.errors(latents).errors, fitted.errors(IMAGES).errors)
    np.testing.assert_array_equal(fitted.encode(IMAGES).values, latents.values)
    np.testing.assert_array_equal(fitted.predict(latents[3:5]), fitted.predict(IMAGES[3:5]))
    assert not latents.values.is_inference()


def test_every_image_is_encoded_once_for_a_whole_cross_validation(clf, monkeypatch):
    calls = spy_on_encoding(monkeypatch)
    latents = clf.encode(IMAGES)
    assert calls == [8, 8]  # eleven images, padded to a fixed batch
    scores = cross_val_score(clf, latents, Y, cv=3)
    predicted = cross_val_predict(clf, latents, Y, cv=3)
    assert calls == [8, 8]
    np.testing.assert_array_equal(scores, cross_val_score(clf, IMAGES, Y, cv=3))
    np.testing.assert_array_equal(predicted, cross_val_predict(clf, IMAGES, Y, cv=3))


@pytest.mark.parametrize(
    "index", [[0, 3], np.array([2, 1]), slice(1, 4), np.arange(11) % 2 == 0, [True] + [False] * 10]
)
def test_scikit_learn_can_slice_latents(clf, index):
    latents = clf.encode(IMAGES)
    picked = _safe_indexing(latents, index)
    wanted = np.asarray(latents.values)[index]
    assert isinstance(picked, Latents) and picked.shape == wanted.shape
    np.testing.assert_array_equal(picked.values, wanted)
    assert len(latents) == 11 and latents.shape == (11, 4, 8, 8)
    np.testing.assert_array_equal(latents[-1], latents.values[10])


def test_a_slice_pickles_without_the_others(clf):
    latents = clf.encode(IMAGES)
    copy = pickle.loads(data := pickle.dumps(latents[:2]))
    np.testing.assert_array_equal(copy.values, latents.values[:2])
    assert len(data) < 2 * 4 * 8 * 8 * 4 + 2000
    np.testing.assert_array_equal(
        clf.fit(copy, ["cat", "dog"]).predict(copy), clf.predict(IMAGES[:2])
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"backend": DiffusersBackend(tiny_sd("v_prediction"))}, "config_sha256="),
        ({"image_size": 8}, r"image_size=\[16, 16\], this classifier has \[8, 8\]"),
        ({"resize": "pad"}, "resize='crop', this classifier has 'pad'"),
        ({"backend": GaussianBackend([[0], [1]], [[[1]], [[1]]])}, "backend=None"),
    ],
)
def test_latents_of_another_network_or_size_are_refused(clf, options, complaint):
    latents = clf.encode(IMAGES)
    other = DiffusionClassifier(**{"backend": clf.backend, **OPTIONS, **options})
    with pytest.raises(ValueError, match=f"these latents were made with .*{complaint}"):
        other.fit(latents, Y)
    with pytest.raises(ValueError, match=complaint):
        other.fit(None, ["cat", "dog"]).predict(latents)


def test_latents_and_labels_must_match_in_number(clf):
    with pytest.raises(ValueError, match=r"\[2, 11\]"):
        clf.fit(clf.encode(IMAGES)[:2], Y)


def test_tables_are_not_encoded():
    with pytest.raises(ValueError, match="GaussianBackend reads numeric tables"):
        DiffusionClassifier(GaussianBackend()).encode(np.zeros((3, 2)))


def test_any_image_backend_encodes():
    backend = FunctionBackend(
        lambda z, t, c: z, schedule=NoiseSchedule.flow(10), encode=lambda images: images[:, :1]
    )
    assert DiffusionClassifier(backend).encode(IMAGES[:3]).shape == (3, 1, 16, 16)


def test_encoding_takes_smaller_batches_once_memory_runs_out(clf, monkeypatch):
    expected = clf.encode(IMAGES).values
    encode = DiffusersBackend.encode_images

    def small(self, images):
        if len(images) > 2:
            raise RuntimeError("out of memory")
        return encode(self, images)

    monkeypatch.setattr(DiffusersBackend, "encode_images", small)
    np.testing.assert_allclose(clf.encode(IMAGES).values, expected, atol=1e-5)
