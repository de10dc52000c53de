"""Error tables in Parquet files, which any data tool reads.

One row per image and prompt: ``image``, ``label``, ``prompt``, ``active``, ``n_draws`` and
``errors``, the list of errors on the draws that the prompt was evaluated on, from the first on.
What all rows share (timesteps, weights, priors, schedule, ...) is JSON in the file's metadata.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import torch

from ..errors import InputValueError
from ..noise.schedule import NoiseSchedule
from ..scoring.class_losses import Scoring
from .table import ErrorTable

_KEY = b"diffusion_classifier"
_PER_DRAW = ("timesteps", "density", "round_of", "antithetic")


def write_parquet(table: ErrorTable, path: str | os.PathLike[str]) -> None:
    """Write a table so that :func:`read_parquet` gives an equal one.

    Parameters
    ----------
    table : ErrorTable
    path : str or path-like

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    pa, pq = _import_pyarrow()
    n_images, n_prompts, _ = table.errors.shape
    n_draws = table.n_draws.ravel()
    flat = table.errors[~np.isnan(table.errors)]
    offsets = np.concatenate([[0], n_draws.cumsum()])
    columns = {
        "image": np.repeat(np.arange(n_images), n_prompts),
        "label": pa.array(table.classes[np.tile(table.class_of, n_images)].tolist()),
        "prompt": pa.array(table.prompts * n_images),
        "active": table.active.ravel(),
        "n_draws": n_draws,
        "errors": pa.LargeListArray.from_arrays(offsets, flat),
    }
    rows = pa.table(columns)
    pq.write_table(rows.replace_schema_metadata({_KEY: json.dumps(_header(table))}), path)


def read_parquet(path: str | os.PathLike[str]) -> ErrorTable:
    """Read a table that :func:`write_parquet` wrote.

    Parameters
    ----------
    path : str or path-like

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If the file is not such a table.
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
    per_draw: dict[str, Any] = {name: np.array(header[name]) for name in _PER_DRAW}
    schedule, scoring = header["schedule"], header["scoring"]
    return ErrorTable(
        errors=errors.reshape(-1, n_prompts, n_draws),
        active=rows["active"].to_numpy().reshape(-1, n_prompts),
        **per_draw,
        scoring=Scoring(
            torch.tensor(scoring["weights"], dtype=torch.float64),
            torch.tensor(scoring["log_prior"], dtype=torch.float64),
            torch.tensor(scoring["class_of"]),
            scoring["reduction"],
            tuple(scoring["log_temperature"]),
        ),
        schedule=NoiseSchedule(schedule["alpha"], schedule["sigma"]),
        prediction_type=header["prediction_type"],
        loss=header["loss"],
        classes=np.array(header["classes"], dtype=header["classes_dtype"]),
        prompts=tuple(header["prompts"]),
        seed=header["seed"],
        alpha=header["alpha"],
        made_by=header["made_by"],
    )


def _header(table: ErrorTable) -> dict[str, Any]:
    """What all rows share."""
    scoring = table.scoring
    return {
        **{name: getattr(table, name).tolist() for name in _PER_DRAW},
        "scoring": {
            "weights": scoring.weights.tolist(),
            "log_prior": scoring.log_prior.tolist(),
            "class_of": scoring.class_of.tolist(),
            "reduction": scoring.reduction,
            "log_temperature": scoring.log_temperature,
        },
        "schedule": {
            "alpha": table.schedule.alpha.tolist(),
            "sigma": table.schedule.sigma.tolist(),
        },
        "prediction_type": table.prediction_type,
        "loss": table.loss,
        "classes": table.classes.tolist(),
        "classes_dtype": table.classes.dtype.str,
        "prompts": table.prompts,
        "seed": table.seed,
        "alpha": table.alpha,
        "made_by": table.made_by,
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
