"""Error tables as Parquet files, which common data tools can read.

The file has one row per image and prompt, with columns ``image``, ``label``, ``prompt``,
``active``, ``n_draws`` and ``errors``: the list of the prompt's errors on its first ``n_draws``
draws. What all rows share (timesteps, weights, priors, schedule, ...) is stored as JSON in the
file's metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputValueError
from ..utils.files import atomic_file
from .setup import RecordSetup

_KEY = b"diffusion_classifier"
PER_DRAW = ("timesteps", "density", "round_of", "antithetic")


def write_parquet(
    path: str | os.PathLike[str],
    errors: NDArray[np.float32],
    active: NDArray[np.bool_],
    per_draw: Mapping[str, NDArray[Any]],
    setup: RecordSetup,
) -> None:
    """Write the fields of an error table to a file, whole or not at all.

    Parameters
    ----------
    path : str or path-like
    errors : ndarray of shape (N, P, J)
    active : ndarray of shape (N, P)
    per_draw : mapping
        Arrays of shape (J,) under the names in ``PER_DRAW``.
    setup : RecordSetup

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    InputFileError
        If the path is a symbolic link or no regular file, or cannot be written.
    """
    pa, pq = _import_pyarrow()
    n_images, n_prompts, _ = errors.shape
    evaluated = ~np.isnan(errors)
    n_draws = evaluated.sum(2).ravel()
    offsets = np.concatenate([[0], n_draws.cumsum()])
    labels = setup.classes[np.tile(setup.scoring.class_of.numpy(), n_images)]
    columns = {
        "image": np.repeat(np.arange(n_images), n_prompts),
        "label": pa.array(labels.tolist()),
        "prompt": pa.array(setup.prompts * n_images),
        "active": active.ravel(),
        "n_draws": n_draws,
        "errors": pa.LargeListArray.from_arrays(offsets, errors[evaluated]),
    }
    header = {name: per_draw[name].tolist() for name in PER_DRAW} | setup.to_json()
    rows = pa.table(columns)
    with atomic_file(path) as file:
        pq.write_table(rows.replace_schema_metadata({_KEY: json.dumps(header)}), file)


def read_parquet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of an error table that :func:`write_parquet` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    dict
        ``errors``, ``active``, ``setup`` and the names in ``PER_DRAW``.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    InputValueError
        If the file is not an error table.
    """
    _, pq = _import_pyarrow()
    rows = pq.read_table(path)
    metadata = rows.schema.metadata or {}
    if _KEY not in metadata:
        raise InputValueError(f"{path} holds no ErrorTable; write one with ErrorTable.to_parquet.")
    header = json.loads(metadata[_KEY])
    n_prompts, n_draws = len(header["prompts"]), len(header["timesteps"])
    lists = rows["errors"].combine_chunks()
    flat = lists.flatten().to_numpy()
    errors = np.full((len(rows), n_draws), np.nan, flat.dtype)
    errors[np.arange(n_draws) < rows["n_draws"].to_numpy()[:, None]] = flat
    return {
        "errors": errors.reshape(-1, n_prompts, n_draws),
        "active": rows["active"].to_numpy().reshape(-1, n_prompts),
        **{name: np.array(header[name]) for name in PER_DRAW},
        "setup": RecordSetup.from_json(header),
    }


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: pip install 'diffusion-classifier[parquet]'."
        ) from error
    return pyarrow, pyarrow.parquet
