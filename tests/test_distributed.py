"""score_dataset: many actors answer as one process does, also when one of them is killed."""

import io
import os
import signal
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError

from diffusion_classifier import DiffusionClassifier, distributed
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.distributed import _move, score_dataset
from diffusion_classifier.errors import (
    InputTypeError,
    InputValueError,
    OutOfMemoryError,
    StoreError,
)
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning

ray = pytest.importorskip("ray")
ray_data = pytest.importorskip("ray.data")

pytestmark = pytest.mark.slow  # starting Ray and its actors takes seconds each
LABELS = ["red digit", "green digit", "blue digit"]
SCENES = load_scenes("test", n_samples=20)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}},
    )
    yield
    ray.shutdown()


def classifier(**params):
    options = {"random_state": 0, "batch_size": 24, "device": "cpu"} | params
    return DiffusionClassifier(**options).fit(None, LABELS)


def png(image):
    data = io.BytesIO()
    Image.fromarray(image).save(data, "png")
    return data.getvalue()


def rows_of(images):
    return ray_data.from_items(
        [{"id": f"scene-{i}", "image": image, "y": i % 3} for i, image in enumerate(images)]
    )


def test_two_actors_answer_as_one_process_bit_for_bit():
    clf = classifier()
    scored = score_dataset(
        clf, rows_of(list(SCENES.images)), columns=["y"], concurrency=2, block_rows=4, top=2
    ).take_all()
    table = clf.errors(SCENES.images)
    proba = clf.predict_proba(SCENES.images)
    assert [row["id"] for row in scored] == [f"scene-{i}" for i in range(20)]
    assert [row["y"] for row in scored] == [i % 3 for i in range(20)]
    assert [row["label"] for row in scored] == clf.predict(SCENES.images).tolist()
    best = np.argsort(-proba, kind="stable")[:, :2]
    found = np.array([row["probabilities"] for row in scored])
    np.testing.assert_array_equal(found, np.take_along_axis(proba, best, 1))
    assert [row["labels"] for row in scored] == clf.classes_[best].tolist()
    assert [row["n_evaluations"] for row in scored] == table.n_evaluations.tolist()
    for name in ("resolved", "runner_up", "margin", "standard_error", "n_draws"):
        assert [row[name] for row in scored] == table.certificate[name].tolist()
    assert all(row["error"] is None for row in scored)


def test_images_in_any_form_have_answers_and_unreadable_ones_a_reason():
    clf = classifier(pruner=NoPruning(4))
    data = [png(image) for image in SCENES.images[:4]]
    for cells in (data, [{"bytes": d, "path": None} for d in data]):
        cells = [*cells, cells[0]]
        broken = b"no picture"
        cells[2] = broken if isinstance(cells[2], bytes) else {"bytes": broken, "path": None}
        scored = score_dataset(clf, rows_of(cells), concurrency=1, block_rows=5).take_all()
        expected = clf.predict(SCENES.images[[0, 1, 3, 0]]).tolist()
        assert [row["label"] for row in scored if row["error"] is None] == expected
        assert scored[2]["label"] is None and scored[2]["probabilities"] is None
        assert scored[2]["error"].startswith("image scene-2 cannot be read as an image")


def test_a_block_of_unreadable_images_ends_nothing_and_names_them_by_id():
    clf = classifier(pruner=NoPruning(4))
    cells = [b"x", b"y", png(SCENES.images[0]), png(SCENES.images[1])]
    rows = [
        {"id": rf"C:\data\{i}.png", "image": cell, "y": None if i % 2 else 2**60 + i}
        for i, cell in enumerate(cells)
    ]
    dataset = ray_data.from_items(rows)
    scored = score_dataset(clf, dataset, columns=["y"], block_rows=2)  # as many actors as fit
    found = scored.take_all()
    assert [row["error"] is None for row in found] == [False, False, True, True]
    assert [row["error"].partition(" cannot")[0] for row in found[:2]] == [
        rf"image C:\data\{i}.png" for i in range(2)
    ]
    assert [row["y"] for row in found] == [2**60, None, 2**60 + 2, None]


def test_image_folders_are_read_by_path(tmp_path):
    for i, image in enumerate(SCENES.images[:3]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    clf = classifier(pruner=NoPruning(4))
    images = ray_data.read_images(str(tmp_path), include_paths=True)
    scored = score_dataset(clf, images, concurrency=1).take_all()
    assert sorted(os.path.basename(row["id"]) for row in scored) == ["0.png", "1.png", "2.png"]
    by_name = {os.path.basename(row["id"]): row["label"] for row in scored}
    expected = clf.predict(SCENES.images[:3]).tolist()
    assert [by_name[f"{i}.png"] for i in range(3)] == expected


@pytest.mark.parametrize("source", ["parquet", "webdataset", "hugging_face"])
def test_images_come_from_files_of_any_kind(source, tmp_path):
    data = [png(image) for image in SCENES.images[:4]]
    if source == "parquet":
        table = pa.table({"id": [10, 11, 12, 13], "picture": data})
        pq.write_table(table, tmp_path / "rows.parquet")
        dataset, column = ray_data.read_parquet(str(tmp_path)), "picture"
    elif source == "webdataset":
        with tarfile.open(tmp_path / "shard.tar", "w") as tar:
            for number, content in enumerate(data):
                info = tarfile.TarInfo(f"{number:04}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        dataset, column = ray_data.read_webdataset(str(tmp_path / "shard.tar")), "png"
    else:
        pictures = [Image.fromarray(image) for image in SCENES.images[:4]]
        rows = datasets.Dataset.from_dict({"id": list("abcd"), "image": pictures})
        rows = rows.cast_column("image", datasets.Image())
        dataset, column = ray_data.from_huggingface(rows), "image"
    clf = classifier(pruner=NoPruning(4))
    scored = score_dataset(clf, dataset, image_column=column, concurrency=1).take_all()
    assert [row["error"] for row in scored] == [None] * 4
    assert [row["label"] for row in scored] == clf.predict(SCENES.images[:4]).tolist()
    assert len({row["id"] for row in scored}) == 4


def fragile(marker, bad_value):
    """A network that kills its process once, and returns NaN for images of one value."""

    def predict(z, t, k):
        if marker and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        output = z * (1 + k.view(-1, 1, 1, 1))
        return output

    def encode(images):
        return torch.where(images.mean((1, 2, 3), keepdim=True) == bad_value, torch.nan, images)

    return FunctionBackend(
        predict, schedule=NoiseSchedule.flow(50), prediction_type="flow", image_size=(4, 4),
        encode=encode,
    )  # fmt: skip


def grey(values):
    return [np.full((4, 4, 3), value, np.uint8) for value in values]


def fragile_classifier(marker=None, bad_value=2.0):
    backend = fragile(marker, bad_value)
    clf = DiffusionClassifier(backend, pruner=NoPruning(6), random_state=0, batch_size=8)
    return clf.fit(None, [0, 1, 2])


def test_a_killed_actor_is_replaced_and_every_image_answered_once(tmp_path):
    images = grey(range(0, 240, 20))
    marker = tmp_path / "killed"
    clf = fragile_classifier(str(marker))
    scored = score_dataset(clf, rows_of(images), concurrency=2, block_rows=3).take_all()
    assert marker.exists()
    undisturbed = fragile_classifier().predict_proba(np.stack(images))
    assert [row["id"] for row in scored] == [f"scene-{i}" for i in range(12)]
    assert [row["probabilities"][0] for row in scored] == undisturbed.max(1).tolist()


def test_a_latent_that_is_not_finite_costs_its_image_only():
    images = grey([0, 50, 255, 100])  # 255 is 1.0 in [-1, 1]
    clf = fragile_classifier(bad_value=1.0)
    scored = score_dataset(clf, rows_of(images), concurrency=1, block_rows=4).take_all()
    assert [row["error"] is None for row in scored] == [True, True, False, True]
    assert "image scene-2" in scored[2]["error"] and "NaN" in scored[2]["error"]


def test_a_store_that_fails_for_a_moment_is_tried_again_and_then_ends_the_job(monkeypatch):
    scorer = object.__new__(distributed.Scorer)
    scorer.clf, scorer.top = classifier(pruner=NoPruning(4)), 1
    monkeypatch.setattr(distributed, "SECONDS_BETWEEN_ATTEMPTS", 0)
    failures = [StoreError("full"), OutOfMemoryError("short"), StoreError("full")]
    predict = distributed.predictions

    def failing(*args, **options):
        if failures:
            raise failures.pop()
        return predict(*args, **options)

    monkeypatch.setattr(distributed, "predictions", failing)
    with pytest.raises(StoreError):
        scorer._predict(list(SCENES.images[:1]))
    failures.append(StoreError("full"))
    assert len(scorer._predict(list(SCENES.images[:1]))) == 1


def test_actors_that_leave_no_cpu_to_the_readers_are_warned_of():
    clf = classifier(pruner=NoPruning(4))
    with pytest.warns(UserWarning, match="3 actors of 1 CPUs leave none of the cluster's 3"):
        score_dataset(clf, rows_of(list(SCENES.images[:2])), concurrency=3)
    assert distributed._count_slots({"CPU": 64.0}, 2, 0) == 31
    assert distributed._count_slots({"CPU": 1.0}, 1, 0) == 1
    assert distributed._count_slots({"CPU": 64.0, "GPU": 8.0}, 4, 0.5) == 16


def test_errors_name_what_is_wrong():
    clf, rows = classifier(pruner=NoPruning(4)), rows_of(list(SCENES.images[:2]))
    with pytest.raises(InputValueError, match=r"no column 'picture'; it has \['id', 'image', 'y'"):
        score_dataset(clf, rows, image_column="picture")
    with pytest.raises(InputValueError, match="no column names the images"):
        score_dataset(clf, rows.drop_columns(["id"]))
    with pytest.raises(InputValueError, match="rename them"):
        score_dataset(clf, rows, columns=["id"])
    with pytest.raises(InputTypeError, match=r"ray\.data\.Dataset"):
        score_dataset(clf, [1, 2])
    with pytest.raises(InputValueError, match="the data set is empty"):
        score_dataset(clf, ray_data.from_items([]))
    with pytest.raises(NotFittedError):
        score_dataset(DiffusionClassifier(), rows)
    with pytest.raises(InputValueError, match="block_rows"):
        score_dataset(clf, rows, block_rows=0)


def test_networks_are_moved_and_others_refused():
    backend = FunctionBackend(
        torch.nn.Linear(2, 2), schedule=NoiseSchedule.flow(9), input_kind="array"
    )
    _move(backend, "meta")
    assert backend.function.weight.device.type == backend.device.type == "meta"
    with pytest.raises(InputTypeError, match="num_gpus"):
        _move(FunctionBackend(abs, schedule=NoiseSchedule.flow(9)), "cpu")
