"""On a CUDA device: the same answers as on the CPU, in less memory than asked for."""

import gc

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, clear_model_cache
from diffusion_classifier.datasets import DIGIT_NAMES, load_scenes
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.race.engine import Engine
from tests.support.pipelines import IMAGE_SIZE, PROMPTS, saved, tiny_sd

pytestmark = pytest.mark.gpu
OPTIONS = {"random_state": 0, "verbose": 0}


@pytest.fixture(autouse=True)
def exact():
    """Matrix products and convolutions in float32 without rounding to TensorFloat-32."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    for part in parts:
        part.allow_tf32 = False
    yield
    for part, value in zip(parts, before, strict=True):
        part.allow_tf32 = value
    clear_model_cache()
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def scenes():
    return load_scenes("test", n_samples=24)


def digits(device, dtype="float32", **options):
    clf = DiffusionClassifier(device=device, dtype=dtype, **OPTIONS, **options)
    return clf.fit(None, list(DIGIT_NAMES))


def off(found, exact):
    """How far differences between classes are off, relative to these differences."""
    found, exact = (e - e.mean(1, keepdims=True) for e in (found.errors, exact.errors))
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def test_errors_are_those_of_the_cpu(scenes):
    tables = [
        digits(device, pruner=NoPruning(6)).errors(scenes.images[:4]) for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(tables[1].errors, tables[0].errors, rtol=1e-4)
    assert off(tables[1], tables[0]) < 1e-3


def test_a_race_drops_the_same_classes_and_answers_alike(scenes):
    tables = [digits(device).errors(scenes.images) for device in ("cpu", "cuda")]
    evaluations = [table.n_evaluations for table in tables]
    answers = [table.log_posterior().argmax(1) for table in tables]
    assert (answers[0] == answers[1]).all()
    assert (evaluations[0] == evaluations[1]).mean() > 0.8  # rounding may move a drop by a round


def test_two_steps_under_way_answer_like_one(scenes, monkeypatch):
    clf = digits("cuda", batch_size=16)
    under_way, most = [0], [0]
    begin = Engine.begin

    def noted(engine, requests):
        answer = begin(engine, requests)
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])

        def answered():
            under_way[0] -= 1
            return answer()

        return answered

    monkeypatch.setattr(Engine, "begin", noted)
    two = clf.errors(scenes.images)
    assert under_way == [0] and most == [2]
    monkeypatch.setattr(Engine, "steps_at_once", property(lambda engine: 1))
    one = clf.errors(scenes.images)
    np.testing.assert_array_equal(np.isnan(two.errors), np.isnan(one.errors))
    np.testing.assert_allclose(two.errors, one.errors, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.05), ("bfloat16", 0.4)])
def test_half_precision_keeps_the_differences_between_classes(scenes, dtype, most):
    exact, half = (
        digits("cuda", kind, pruner=NoPruning(6)).errors(scenes.images[:4])
        for kind in ("float32", dtype)
    )
    assert half.errors.dtype == np.float32
    assert off(half, exact) < most


def test_auto_is_the_gpu_in_the_familys_half_precision(scenes):
    clf = digits("auto", "auto")
    assert clf.backend_.device.type == "cuda" and clf.backend_.dtype == torch.float16
    assert (clf.predict(scenes.images) == scenes.digit).mean() > 0.9


def test_a_small_memory_is_enough(scenes):
    """Batches shrink until they fit, and answers stay the same."""
    clf = digits("cuda", pruner=NoPruning(8))
    expected = clf.errors(scenes.images[:8])
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_allocated() + 48 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        found = clf.errors(scenes.images[:8])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-4)


def test_batches_are_sized_by_the_memory_that_is_left(scenes, monkeypatch):
    """The first prediction measures short batches; a second neither measures nor fails."""
    clf = digits("cuda", pruner=NoPruning(8))
    torch.cuda.reset_peak_memory_stats()
    expected = clf.errors(scenes.images[:8])
    needed = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    clear_model_cache()
    clf = digits("cuda", pruner=NoPruning(8))
    forward, rows, failed = clf.backend_.forward, [], []

    def noted(z, t, condition):
        rows.append(len(z))
        try:
            return forward(z, t, condition)
        except torch.OutOfMemoryError:
            failed.append(len(z))
            raise

    monkeypatch.setattr(clf.backend_, "forward", noted)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_allocated() + 0.6 * needed
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        clf.errors(scenes.images[:8])
        assert rows[1] < rows[2] and max(rows) < 400  # of 640, in about two batches if all fit
        rows.clear(), failed.clear()
        found = clf.errors(scenes.images[:8])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not failed and min(rows[:2]) > 32
    np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-4)


def test_a_second_prediction_leaves_no_memory_behind(scenes):
    clf = digits("cuda")
    clf.predict(scenes.images[:4])
    gc.collect()
    before = torch.cuda.memory_allocated()
    clf.predict(scenes.images)
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + 2**20


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_networks_predict_the_same(tmp_path, offload):
    folder = saved(tiny_sd(), tmp_path / "model")
    images = np.random.default_rng(0).integers(0, 256, (3, *IMAGE_SIZE, 3), dtype=np.uint8)
    plain = DiffusersBackend.from_pretrained(folder, device="cuda")
    backends = [plain, DiffusersBackend.from_pretrained(folder, offload=offload)]
    tables = [
        DiffusionClassifier(backend, pruner=NoPruning(6), **OPTIONS)
        .fit(None, list(PROMPTS))
        .errors(images)
        for backend in backends
    ]
    np.testing.assert_allclose(tables[1].errors, tables[0].errors, rtol=1e-4)


@pytest.mark.parametrize("mode", [True, "regional"])
def test_a_compiled_denoiser_predicts_the_same(scenes, mode):
    expected = digits("cuda", pruner=NoPruning(6)).errors(scenes.images[:4])
    clear_model_cache()
    clf = DiffusionClassifier(pruner=NoPruning(6), device="cuda", dtype="float32", **OPTIONS)
    clf.fit(None, list(DIGIT_NAMES))
    clf.backend_.compile(mode)
    found = clf.errors(scenes.images[:4])
    assert off(found, expected) < 1e-2


def test_pictures_of_many_sizes_are_encoded_on_the_gpu(scenes):
    clf = digits("cuda")
    latents = clf.encode(scenes.images[:5])
    expected = digits("cpu").encode(scenes.images[:5])
    assert latents.values.device.type == "cpu"
    torch.testing.assert_close(latents.values, expected.values, rtol=1e-3, atol=1e-3)
