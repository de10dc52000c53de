"""Every family of pipelines against the pipeline's own code: one suite, the same for all."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends import pipeline as pipeline_module
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.testing import check_family
from tests.support.family_cases import CASES, Case
from tests.support.own_calls import images_of, options_of, subject_of
from tests.support.pipelines import saved


@pytest.fixture(scope="session", params=CASES, ids=str)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="session")
def folder(case, tmp_path_factory) -> str:
    return saved(case.build(), tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def backend(folder) -> DiffusersBackend:
    return load_backend(folder)


@pytest.fixture
def images(case):
    return images_of(case)


def test_a_saved_pipeline_is_known_by_its_folder(case, backend):
    pipeline = case.build()
    assert type(backend.pipeline) is type(pipeline)
    assert backend.prediction_type == case.prediction_type
    assert backend.image_size == case.image_size
    text = len(case.text_encoders) > 0
    assert backend.text_conditional is text
    assert backend.default_template == ("a photo of a {}" if text else "{}")
    assert backend.schedule.n_timesteps == 1000


def test_the_family_passes_the_public_checks(case, folder, backend):
    check_family(folder, **options_of(case, backend.pipeline))


def test_latents_have_the_shape_of_the_case(case, backend, images):
    x = backend.encode_images(images)
    assert x.shape == (2, *case.latent) and x.dtype == torch.float32


def test_labels_change_the_error(case, backend):
    errors = subject_of(case, backend).own_errors
    assert (errors.amax(1) / errors.amin(1) > 1 + case.spread).any(1).all()


def test_conditions_keep_their_order_over_batches_of_prompts(case, backend, monkeypatch):
    whole = backend.encode_classes(case.labels, case.labels)
    monkeypatch.setattr(pipeline_module, "PROMPTS_PER_BATCH", 3)
    order = [2, 0, 3, 1]
    labels = [case.labels[k] for k in order]
    shuffled = backend.encode_classes(labels, labels)
    assert len(whole) == len(shuffled) == 4
    for name, tensor in whole[torch.tensor(order)].tensors.items():
        torch.testing.assert_close(shuffled[name], tensor, rtol=1e-5, atol=1e-5)


def test_pickles_leave_the_weights_out(backend):
    assert len(pickle.dumps(backend)) < 40_000


def test_a_component_that_the_folder_lacks_is_named(case, folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "model"))
    shutil.rmtree(copied / case.denoiser)
    with pytest.raises(FileNotFoundError, match=f"no folder '{case.denoiser}'"):
        load_backend(copied)
    index = json.loads((copied / "model_index.json").read_text())
    index.pop("scheduler")
    (copied / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names no scheduler"):
        load_backend(copied)


def test_a_pipeline_in_memory_without_its_scheduler_is_refused(case):
    pipeline = case.build()
    pipeline.scheduler = None
    with pytest.raises(ValueError, match="no scheduler"):
        DiffusersBackend(pipeline)


def test_a_path_is_all_that_the_classifier_needs(case, folder, images, tmp_path):
    clf = DiffusionClassifier(
        folder,
        pruner=NoPruning(max_draws=2),
        image_size=case.pixels,
        device="cpu",
        batch_size=8,
        random_state=0,
    )
    clf.fit(None, list(case.labels))
    images = (images + 1) / 2
    probabilities = clf.predict_proba(images)
    assert (clf.predict(images) == clf.classes_[probabilities.argmax(1)]).all()
    assert probabilities.shape == (2, 4) and np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert (probabilities.std(1) > 1e-6).all()
    clf.save(tmp_path)
    twins = [DiffusionClassifier.load(tmp_path), pickle.loads(pickle.dumps(clf))]
    for twin in (*twins, clone(clf).fit(None, list(case.labels))):
        np.testing.assert_array_equal(twin.predict_proba(images), probabilities)


def test_wrong_labels_are_named_where_labels_are_classes(case, backend):
    clf = DiffusionClassifier(backend)
    if case.text_encoders:  # any text will do, but not twice
        with pytest.raises(ValueError, match=r"'a cat'\] are given more than once"):
            clf.fit(None, ["a cat", "a dog", "a cat"])
        return
    with pytest.raises(ValueError, match="'no such class' is not a class of this model"):
        clf.fit(None, [case.labels[0], "no such class"])
