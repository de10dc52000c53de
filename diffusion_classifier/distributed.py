"""Scoring of data sets on several devices or machines, with Ray Data.

A data set flows through actors, one per GPU or CPU slot. Each loads the classifier once and scores
block after block of a few images. An image's answer depends on nothing but the image and the
classifier: with a fixed ``batch_size`` on a CPU it is bit for bit that of a single process,
whatever the blocks and actors. Actors that die are replaced, and their blocks scored again; with
``memory`` the errors that they had paid for are looked up.

Needs Ray: ``pip install 'diffusion-classifier[ray]'``.
"""

from __future__ import annotations

import copy
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sklearn.utils.validation import check_is_fitted

from .classifier import DiffusionClassifier
from .errors import (
    InputError,
    InputTypeError,
    InputValueError,
    NonFiniteOutputError,
    OutOfMemoryError,
    StoreError,
)
from .evaluation.predictions import FIELDS, no_prediction, predictions
from .images.files import opened
from .utils.constraints import Integers, Reals, Sequences, check
from .utils.display import short_repr

if TYPE_CHECKING:
    import ray.data

ID_COLUMNS = ("id", "path", "__key__")  # in this order, if no column is named
BLOCK_ROWS = 32
MOST_ATTEMPTS = 3  # at one block, after errors that may pass
SECONDS_BETWEEN_ATTEMPTS = 2.0


def score_dataset(
    clf: DiffusionClassifier,
    dataset: ray.data.Dataset,
    *,
    image_column: str = "image",
    id_column: str | None = None,
    columns: Sequence[str] = (),
    top: int = 5,
    memory: str | None = None,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    block_rows: int = BLOCK_ROWS,
) -> ray.data.Dataset:
    """Score the images of a Ray data set, on as many actors as there are devices.

    Nothing is computed before the result is written or iterated over.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted. Its network must be picklable: loaded by path or Hub id, which every machine must
        reach, or a FunctionBackend.
    dataset : ray.data.Dataset
        Such as ``ray.data.read_parquet(...)``, ``read_images(folder, include_paths=True)``,
        ``read_webdataset(...)`` or ``from_huggingface(...)``.
    image_column : str, default="image"
        Column with the images: arrays, bytes of image files, paths, or the undecoded images
        ``{"bytes", "path"}`` of Hugging Face.
    id_column : str or None, default=None
        Column that names the images in the result. None: "id", "path" or "__key__".
    columns : sequence of str, default=()
        Columns to keep in the result, such as the true label.
    top : int, default=5
        Number of the most probable classes in ``labels`` and ``probabilities``.
    memory : str or None, default=None
        Folder of an error store, on a file system that all machines share; None keeps the
        classifier's.
    concurrency : int or (int, int) or None, default=None
        Number of actors, or its smallest and largest value. None: one for each ``num_gpus`` GPUs,
        or without GPUs for each ``num_cpus`` CPUs of the cluster but one, which reads.
    num_cpus, num_gpus : float, default=1 and 0
        Of each actor. With GPUs, an actor moves the network to its GPU.
    block_rows : int, default=32
        Images per block: what is scored again when an actor dies.

    Returns
    -------
    ray.data.Dataset
        One row per image, in the order of ``dataset`` if Ray preserves it: ``id``, what
        :func:`~diffusion_classifier.evaluation.predictions` records of the answer, then
        ``columns``. An image without an answer has nulls, and the reason in ``error``.

    Raises
    ------
    ImportError
        If Ray is not installed.
    InputTypeError
        If ``clf`` is not a DiffusionClassifier or ``dataset`` is no Ray data set.
    InputValueError
        If the data set is empty, a column does not exist or an option has a value that it does not
        allow.
    sklearn.exceptions.NotFittedError
        If ``clf`` is not fitted.

    Examples
    --------
    A folder of images, on all CPUs of a cluster::

        images = ray.data.read_images("pictures/", include_paths=True)
        score_dataset(clf, images, memory="/shared/store").write_parquet("answers/")
    """
    ray = _import_ray()
    check("top", top, Integers(1))
    check("block_rows", block_rows, Integers(1))
    check("num_cpus", num_cpus, Reals(0))
    check("num_gpus", num_gpus, Reals(0))
    check("concurrency", concurrency, Integers(1) | Sequences(Integers(1), length=2) | None)
    if not isinstance(clf, DiffusionClassifier):
        raise InputTypeError(f"clf must be a DiffusionClassifier, not {short_repr(clf)}.")
    if not isinstance(dataset, ray.data.Dataset):
        raise InputTypeError(f"dataset must be a ray.data.Dataset, not {short_repr(dataset)}.")
    schema = dataset.schema()
    if schema is None:
        raise InputValueError("the data set is empty.")
    names = list(schema.names)
    id_column = _find_id(names) if id_column is None else id_column
    for name in (image_column, id_column, *columns):
        if name not in names:
            raise InputValueError(f"the data set has no column {name!r}; it has {names}.")
    if clash := set(columns) & {"id", *FIELDS}:
        raise InputValueError(f"columns {sorted(clash)} are the result's own; rename them.")
    clf = copy.copy(clf).set_params(verbose=0)
    if memory is not None:
        clf.set_params(memory=memory)
    check_is_fitted(clf)
    resources = ray.cluster_resources()
    if concurrency is None:
        concurrency = _count_slots(resources, num_cpus, num_gpus)
    fewest = concurrency if isinstance(concurrency, int) else concurrency[0]
    if fewest * num_cpus + 1 > resources.get("CPU", 0):
        warnings.warn(
            f"{fewest} actors of {num_cpus:g} CPUs leave none of the cluster's "
            f"{resources.get('CPU', 0):g} to Ray's readers, and Ray may wait for ever; pass fewer "
            "actors, or a smaller num_cpus=.",
            UserWarning,
            stacklevel=2,
        )
    if isinstance(concurrency, int):
        actors = ray.data.ActorPoolStrategy(size=concurrency)
    else:
        actors = ray.data.ActorPoolStrategy(min_size=concurrency[0], max_size=concurrency[1])
    blocks = dataset.repartition(target_num_rows_per_block=block_rows)
    return blocks.map_batches(
        Scorer,
        fn_constructor_kwargs={
            "classifier": ray.put(ray.cloudpickle.dumps(clf)),
            "image_column": image_column,
            "id_column": id_column,
            "columns": tuple(columns),
            "top": top,
            "threads": max(1, int(num_cpus)),
            "device": "cuda" if num_gpus else None,
        },
        batch_size=block_rows,
        batch_format="pyarrow",
        compute=actors,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


class Scorer:
    """An actor: loads a classifier once, and scores batches of rows.

    Parameters
    ----------
    classifier : ray.ObjectRef
        A pickled DiffusionClassifier.
    image_column, id_column, columns, top
        See :func:`score_dataset`.
    threads : int
        Threads of PyTorch.
    device : str or None
        Device to move the network to; None leaves it where it is.
    """

    def __init__(
        self,
        classifier: Any,
        image_column: str,
        id_column: str,
        columns: Sequence[str],
        top: int,
        threads: int,
        device: str | None = None,
    ) -> None:
        import ray

        torch.set_num_threads(threads)
        self.clf = ray.cloudpickle.loads(ray.get(classifier))
        if device is not None:
            _move(self.clf.backend_, device)
        self.image_column, self.id_column = image_column, id_column
        self.columns, self.top = columns, top

    def __call__(self, batch: Any) -> Any:
        """Score a batch of rows, a pyarrow.Table; returns another, see :func:`score_dataset`."""
        from ray.data.block import BlockAccessor

        ids = batch[self.id_column].to_pylist()
        name = self.image_column
        values = BlockAccessor.for_block(batch.select([name])).to_numpy([name])[name]
        answers = [no_prediction("") for _ in ids]
        images, rows = [], []
        for row, value in enumerate(values):
            try:
                images.append(_as_image(value))
                rows.append(row)
            except InputError as error:
                answers[row]["error"] = str(error)
        self._score(images, rows, answers)
        for row, answer in enumerate(answers):
            if answer["error"] is not None:  # the number within a block tells the user nothing
                named = f"image {ids[row]}".replace("\\", r"\\")
                answer["error"] = re.sub(r"\bimage \d+", named, answer["error"], count=1)
        return self._to_table(batch, answers)

    def _score(self, images: list[Any], rows: list[int], answers: list[dict[str, Any]]) -> None:
        """Fill in the answers of the images, all at once or, if the network fails, one by one."""
        if not images:
            return
        try:
            found = self._predict(images)
        except NonFiniteOutputError as error:  # for many images in a row
            if len(images) == 1:
                answers[rows[0]] = no_prediction(str(error))
                return
            for image, row in zip(images, rows, strict=True):
                self._score([image], [row], answers)
            return
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer

    def _predict(self, images: list[Any]) -> list[dict[str, Any]]:
        """Predict; shortages of memory and of a shared file system may pass, other errors end."""
        for _ in range(MOST_ATTEMPTS - 1):
            try:
                return predictions(self.clf, images, top=self.top, on_error="skip")
            except (OutOfMemoryError, StoreError):
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        return predictions(self.clf, images, top=self.top, on_error="skip")

    def _to_table(self, batch: Any, answers: list[dict[str, Any]]) -> Any:
        """Make a table whose types do not depend on which images have answers."""
        import pyarrow as pa

        classes = self.clf.classes_
        label = pa.from_numpy_dtype(classes.dtype) if classes.dtype.kind in "biuf" else pa.string()
        kinds = {
            "label": label,
            "probability": pa.float64(),
            "labels": pa.list_(label),
            "probabilities": pa.list_(pa.float64()),
            "n_evaluations": pa.int64(),
            "resolved": pa.bool_(),
            "runner_up": label,
            "margin": pa.float64(),
            "standard_error": pa.float64(),
            "n_draws": pa.int64(),
            "error": pa.string(),
        }
        found = {
            name: pa.array([answer[name] for answer in answers], type=kind)
            for name, kind in kinds.items()
        }
        kept = {name: batch[name] for name in self.columns}
        return pa.table({"id": batch[self.id_column], **found, **kept})


def _as_image(value: Any) -> Any:
    """Return a cell of the image column in a form that the classifier reads."""
    if isinstance(value, Mapping) and {"bytes", "path"} & set(value):  # Hugging Face, not decoded
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray | memoryview):
        with opened(bytes(value), 0) as image:
            image.load()
            return image
    if value is None:
        raise InputValueError("image 0 is null.")
    return value


def _move(backend: Any, device: str) -> None:
    """Move a backend's network to a device."""
    network: Any = getattr(backend, "pipeline", None) or getattr(backend, "function", None)
    if not hasattr(network, "to"):
        raise InputTypeError(f"num_gpus needs a network that can be moved, not {backend}.")
    network.to(device)
    if "device" in vars(backend):
        backend.device = torch.device(device)


def _find_id(names: Sequence[str]) -> str:
    """Return the column that names the images."""
    for name in ID_COLUMNS:
        if name in names:
            return name
    raise InputValueError(
        f"no column names the images; pass id_column=, one of {list(names)}, or read them with "
        "include_paths=True."
    )


def _count_slots(resources: Mapping[str, float], num_cpus: float, num_gpus: float) -> int:
    """Count the actors for which a cluster has room beside Ray's readers, at least one."""
    if num_gpus:
        return max(1, int(resources.get("GPU", 0) // num_gpus))
    return max(1, int((resources.get("CPU", 0) - 1) // (num_cpus or 1)))


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            "score_dataset needs Ray: pip install 'diffusion-classifier[ray]'."
        ) from error
    return ray
