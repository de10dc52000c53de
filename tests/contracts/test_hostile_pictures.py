"""Pictures that cannot be read: found before the network runs, or skipped and reported."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier, ErrorTable, Latents, as_images
from diffusion_classifier.backends import FunctionBackend, GaussianBackend
from diffusion_classifier.datasets import load_image_folder, load_scenes
from diffusion_classifier.errors import (
    InputError,
    InputFileError,
    InputValueError,
    MissingFileError,
    NetworkError,
)
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from tests.support.image_examples import Column, Labelled

SCENES = load_scenes("test", n_samples=12).images
COLORS = ["blue", "green", "red"]
SCHEDULE = NoiseSchedule.flow(10)
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "errors")


@pytest.fixture(scope="module")
def clf():
    return counted(image_size=(8, 8))[0]


@pytest.fixture
def paths(tmp_path):
    paths = [str(tmp_path / f"{i:02}.png") for i in range(len(SCENES))]
    for path, image in zip(paths, SCENES, strict=True):
        Image.fromarray(image).save(path)
    return paths


def cut(path, share=0.7):
    """Cut a file off after its header."""
    with open(path, "r+b") as file:
        file.truncate(int(share * os.path.getsize(path)))


def counted(**options):
    """A classifier of three colours, and the rows that its network was asked for."""
    rows = []
    points = torch.tensor([[-1, -1, 1.0], [-1, 1, -1], [1, -1, -1]])

    def network(z, t, index):  # knows a point for each class
        rows.append(len(z))
        return z - points[index][:, :, None, None]

    backend = FunctionBackend(network, schedule=SCHEDULE, classes=COLORS, **options)
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), batch_size=4, random_state=0)
    return clf.fit(None, COLORS), rows


# ------------------------------------------------------------------ refused before any work


@pytest.mark.parametrize("method", METHODS)
def test_headers_of_all_files_are_read_before_the_first_evaluation(method, paths):
    clf, rows = counted()
    for path in paths[-2:]:
        with open(path, "w") as file:
            file.write("no picture")
    with pytest.raises(InputValueError, match=r"^2 images cannot be read: image 10: ") as error:
        getattr(clf, method)(paths)
    assert "image 11: " in str(error.value) and rows == []
    os.remove(paths[-1])
    with pytest.raises(MissingFileError, match=r"image 11: '.*11\.png' does not exist"):
        getattr(clf, method)(paths)
    assert rows == []


def test_fit_reads_the_headers_of_the_images_it_learns_from(paths):
    clf, rows = counted()
    with open(paths[3], "w") as file:
        file.write("no picture")
    learns = clone(clf).set_params(calibrator="temperature")
    with pytest.raises(InputValueError, match=r"image 3: .*its format is not known"):
        learns.fit(paths, COLORS * 4)
    assert rows == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("method", METHODS)
def test_a_named_pipe_is_refused_and_nothing_waits_for_it(clf, method, paths, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    X = [*paths, tmp_path / "pipe.png"]
    with pytest.raises(InputFileError, match=r"image 12: '.*pipe\.png' is a named pipe, not"):
        getattr(clf, method)(X)
    getattr(clf, method)(X, on_error="skip")
    assert [image for image, _ in clf.skipped_] == [12]
    assert not [t for t in threading.enumerate() if t.name.startswith(("headers", "decode"))]


def test_an_interrupt_ends_the_reading_of_many_files(paths, monkeypatch):
    clf, rows = counted()
    open_image, opened = Image.open, []

    def interrupting(path):
        opened.append(path)
        if len(opened) == 3:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return open_image(path)

    monkeypatch.setattr(Image, "open", interrupting)
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored in a background job
    try:
        with pytest.raises(KeyboardInterrupt):
            clf.predict(paths * 1000)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(opened) < 12_000 and rows == []
    end = time.monotonic() + 20  # for a thread that was just starting as the interrupt came
    while readers := [t for t in threading.enumerate() if t.name.startswith(("headers", "decode"))]:
        assert time.monotonic() < end, readers
        time.sleep(0.01)


# ------------------------------------------------------------------ skipped


def test_two_hundred_images_are_kept_when_the_last_is_unreadable(clf, paths):
    images = paths[:10] * 20
    whole = clf.predict_proba(images)
    cut(paths[11])
    found = clf.predict_proba([*images, paths[11]], on_error="skip")
    np.testing.assert_array_equal(found[:200], whole)
    assert np.isnan(found[200]).all()
    assert [image for image, _ in clf.skipped_] == [200]


@pytest.mark.parametrize("bad", [[11], [0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 4, 10]])
def test_the_others_are_answered_to_the_bit(clf, paths, bad):
    whole = clf.predict_log_proba(paths)
    for i in bad:
        cut(paths[i])
    with pytest.raises(InputValueError, match=rf"image {bad[0]}: .*cannot be read as an image"):
        clf.predict(paths)
    good = np.setdiff1d(np.arange(12), bad)
    for method in ("predict_log_proba", "decision_function"):
        found = getattr(clf, method)(paths, on_error="skip")
        np.testing.assert_array_equal(found[good], whole[good])
        assert np.isnan(found[bad]).all()
    np.testing.assert_array_equal(
        clf.predict_proba(paths, on_error="skip"), np.exp(found), strict=True
    )
    labels = clf.predict(paths, on_error="skip")
    assert labels.dtype == object and [labels[i] for i in bad] == [None] * len(bad)
    np.testing.assert_array_equal(labels[good], clf.classes_[whole.argmax(1)][good])
    assert [image for image, _ in clf.skipped_] == bad
    assert all(f"image {image}: '" in reason for image, reason in clf.skipped_)


def test_without_bad_images_skipping_changes_nothing(clf, paths):
    labels = clf.predict(paths, on_error="skip")
    assert labels.dtype == clf.classes_.dtype and clf.skipped_ == []
    np.testing.assert_array_equal(labels, clf.predict(SCENES))


def test_skipped_images_are_those_of_the_latest_call(clf, paths, tmp_path):
    assert clf.predict([*paths[:2], "nowhere.png"], on_error="skip")[2] is None
    assert [image for image, _ in clf.skipped_] == [2]
    clf.predict(paths[:2])
    assert clf.skipped_ == []
    clf.predict(["nowhere.png", *paths[:2]], on_error="skip")
    clf.save(tmp_path / "saved")  # paths of pictures are no part of a classifier
    assert "nowhere" not in (tmp_path / "saved" / "classifier.json").read_text()
    loaded = DiffusionClassifier.load(tmp_path / "saved", backend=clf.backend)
    assert loaded.skipped_ == []


@pytest.mark.parametrize("view", [list, Column, lambda items: as_images(Labelled(items))])
def test_any_kind_of_bad_image_is_skipped(clf, view, paths, tmp_path):
    nan = SCENES[6] / 255.0
    nan[0, 0, 0] = np.nan
    deep = Image.fromarray(np.array([[0, 1000]], np.int32))
    items = [
        SCENES[0], None, "nowhere.png", str(tmp_path), b"png", SCENES[5] / 1.0, nan, deep,
        np.zeros((5, 5, 7)), SCENES[9] / 255.0, paths[10], Image.fromarray(SCENES[11]),
    ]  # fmt: skip
    expected = clf.predict_proba(SCENES)
    found = clf.predict_proba(view(items), on_error="skip")
    kept = [0, 9, 10, 11]
    np.testing.assert_array_equal(found[kept], expected[kept])
    assert [image for image, _ in clf.skipped_] == list(range(1, 9))
    assert "does not exist" in clf.skipped_[1][1] and "NaN" in clf.skipped_[5][1]


def test_arrays_tables_and_latents_with_nan_are_skipped_row_by_row(clf):
    floats = SCENES / 255.0
    floats[[2, 5], 3, 3] = np.nan
    expected = clf.predict_log_proba(SCENES)
    latents = clf.encode(SCENES)
    values = latents.values.clone()
    values[2, 0, 0, 0], values[5] = torch.nan, torch.inf
    for X in (floats, torch.as_tensor(floats), Latents(values, latents.made_by)):
        found = clf.predict_log_proba(X, on_error="skip")
        assert np.isnan(found).any(1).nonzero()[0].tolist() == [2, 5]
        kept = ~np.isnan(found)
        np.testing.assert_array_equal(found[kept], expected[kept])
        assert [image for image, _ in clf.skipped_] == [2, 5]
    table = np.array([[-1.0], [1.0], [np.nan], [1.0]])
    backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    gauss = DiffusionClassifier(backend, random_state=0).fit(None, ["a", "b"])
    assert gauss.predict(table, on_error="skip").tolist() == ["a", "b", None, "b"]
    with pytest.raises(ValueError, match="NaN"):
        gauss.predict(table)


def test_images_that_the_encoder_turns_to_nan_are_skipped_too():
    bad = [1, 9]

    def encode(images):
        return torch.where(
            (images > 0.99).all(1, keepdim=True).any((2, 3), True), torch.nan, images
        )

    images = np.minimum(SCENES, 200)
    expected = counted(encode=encode)[0].predict_log_proba(images)
    images[bad] = 255
    clf, _ = counted(encode=encode)
    with pytest.raises(NetworkError, match="image 1 "):
        clf.predict(images)
    found = clf.predict_log_proba(images, on_error="skip")
    assert np.isnan(found[bad]).all() and [image for image, _ in clf.skipped_] == bad
    good = np.delete(np.arange(12), bad)
    np.testing.assert_array_equal(found[good], expected[good])
    with pytest.raises(NetworkError, match=r"None; expected"):
        counted(encode=lambda images: None)[0].predict(images, on_error="skip")


def test_pictures_of_their_own_size_are_skipped_too(paths):
    clf, _ = counted()
    expected = clf.predict_proba(paths)
    for path in paths[:9]:  # more than are encoded at a time
        cut(path)
    found = clf.predict_proba(paths, on_error="skip")
    assert np.isnan(found[:9]).all()
    np.testing.assert_array_equal(found[9:], expected[9:])


def test_if_no_image_can_be_read_all_answers_are_nan(paths):
    for options in ({}, {"image_size": (4, 4)}):
        clf, rows = counted(**options)
        assert clf.predict(["a.png", "b.png"], on_error="skip").tolist() == [None, None]
        assert np.isnan(clf.predict_proba(["a.png"], on_error="skip")).all()
        assert rows == []
        with pytest.raises(InputValueError, match=r"no image can be read; the first: image 0: 'a"):
            clf.errors(["a.png", "b.png"], on_error="skip")


def test_a_table_keeps_what_was_skipped(clf, paths, tmp_path):
    whole = clf.errors(paths)
    cut(paths[4])
    table = clf.errors(paths, on_error="skip")
    assert [image for image, _ in table.skipped] == [4] and list(table.skipped) == clf.skipped_
    good = np.delete(np.arange(12), 4)
    np.testing.assert_array_equal(table.errors[good], whole.errors[good])
    assert np.isnan(table.errors[4]).all() and table.n_evaluations[4] == 0
    assert table[3:6].skipped[0][0] == 1
    table.to_parquet(tmp_path / "table.parquet")
    for found in (table, ErrorTable.from_parquet(tmp_path / "table.parquet")):
        assert found.skipped == table.skipped
        with pytest.raises(InputValueError, match="no errors of 1 images, first of image 4"):
            clf.predict(found)
        labels = clf.predict(found, on_error="skip")
        assert labels[4] is None and clf.skipped_ == list(table.skipped)
        np.testing.assert_array_equal(labels[good], clf.predict(whole)[good])
    Image.fromarray(SCENES[4]).save(paths[4])  # mended: only this image is evaluated
    mended = clf.errors(paths, table=table)
    np.testing.assert_array_equal(mended.errors, whole.errors)


def test_the_last_image_of_a_table_can_be_skipped(clf, paths):
    for path in paths[9:]:
        cut(path)
    table = clf.errors(paths, on_error="skip")
    assert len(table) == 12 and [image for image, _ in table.skipped] == [9, 10, 11]


def test_score_raises_rather_than_counting_fewer_images(clf, paths):
    cut(paths[3])
    with pytest.raises(InputValueError, match="image 3: "):
        clf.score(paths, COLORS * 4)


@pytest.mark.parametrize("method", METHODS)
def test_another_word_is_refused_with_those_known(clf, method):
    with pytest.raises(ValueError, match=r"on_error='ignore' .*'raise', 'skip'"):
        getattr(clf, method)(SCENES[:1], on_error="ignore")


# ------------------------------------------------------------------ folders and shapes


@pytest.mark.parametrize("kind", [str, os.fspath])
def test_a_folder_is_predicted_in_the_order_of_names(clf, kind, paths, tmp_path):
    np.testing.assert_array_equal(clf.predict(kind(tmp_path)), clf.predict(paths))
    assert len(clf.encode(kind(tmp_path))) == 12
    fitted = clone(clf).fit(kind(tmp_path), COLORS * 4)
    np.testing.assert_array_equal(fitted.predict(tmp_path), clf.predict(paths))
    for wrong, advice in ((paths[0], r"\[path\]"), ([str(tmp_path)], "load_image_folder")):
        with pytest.raises(InputError, match=advice):
            clf.predict(wrong)
    os.mkdir(tmp_path / "cat")
    os.rename(paths[0], tmp_path / "cat" / "0.png")
    with pytest.raises(InputValueError, match=r"sub-folders, \['cat'\]"):
        clf.predict(kind(tmp_path))
    assert clf.predict(load_image_folder(tmp_path).paths).shape == (1,)


def signals(n):
    return np.random.default_rng(0).uniform(-1, 1, (n, 2, 5))


def test_arrays_reach_a_backend_in_the_shape_it_states():
    shapes = []

    def network(z, t, index):
        shapes.append((tuple(z.shape[1:]), z.dtype))
        return z * (index[:, None, None] + 1)

    backend = FunctionBackend(network, schedule=SCHEDULE, input_kind="array", input_shape=(2, 5))
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0).fit(None, [0, 1])
    X = signals(6)
    proba = clf.predict_proba(X)
    for same in (X.astype(np.float32), torch.as_tensor(X), X.reshape(6, 10), np.ma.array(X)):
        np.testing.assert_allclose(clf.predict_proba(same), proba, atol=1e-6)
    assert set(shapes) == {((2, 5), torch.float32)}
    assert clf.fit(X, [0, 1] * 3).predict(X).shape == (6,)
    X[3, 1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        clf.predict(X)
    found = clf.predict_proba(X, on_error="skip")
    assert np.isnan(found).any(1).nonzero()[0].tolist() == [3]
    np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(proba, 3, 0), atol=1e-12)


def test_a_backend_of_rows_refuses_other_shapes_with_the_way_out():
    clf = DiffusionClassifier(GaussianBackend(reg_param=0.1))
    clf.fit([[0.0] * 10, [1.0] * 10, [2.0] * 10], [0, 0, 1])
    for ask in (clf.predict, lambda X: clf.fit(X, [0, 1, 1])):
        with pytest.raises(InputValueError, match=r"\(3, 2, 5\).*reshape.*input_shape=\(2, 5\)"):
            ask(signals(3))


def test_masked_tables_are_refused():
    X = np.ma.array([[0.0], [1.0], [2.0]], mask=[[0], [1], [0]])
    clf = DiffusionClassifier(GaussianBackend(reg_param=0.1), random_state=0)
    with pytest.raises(InputValueError, match="X is a masked array with 1 masked value"):
        clf.fit(X, ["a", "b", "b"])
    clf.fit(X.filled(1.0), ["a", "b", "b"])
    with pytest.raises(InputValueError, match="X is a masked array"):
        clf.predict(X)
    backend = FunctionBackend(lambda z, t, c: z, schedule=SCHEDULE, image_shape=(1, 1))
    with pytest.raises(InputValueError, match="X is a masked array"):
        DiffusionClassifier(backend).fit(X, [0, 1, 1])
