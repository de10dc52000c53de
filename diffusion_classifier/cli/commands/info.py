"""``info``: what a model is, and the memory that its weights need in each dtype."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer

from ...backends.families.registry import find_family
from ...backends.resolve import resolve_backend
from ..options import Config, JsonFile, settings_of
from ..outputs import check_writable, document, to_json, write, write_settings
from ..shell import usage

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
GIB = 2**30


def info(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Folder, file or Hub id of a diffusers model. Default: the small model."
        ),
    ] = None,
    json_file: JsonFile = None,
    config: Config = None,
) -> None:
    """Say what a model is: family, prediction type, size, schedule, identity, memory by dtype.

    The model is loaded on the CPU, in bfloat16.
    """
    with usage():
        check_writable(json_file)
        backend = resolve_backend(model, "cpu", "bfloat16")
    found, settings = describe(backend), settings_of(ctx)
    write(json_file, to_json(document("info", settings, summary=found)))
    write_settings("info", settings, json_file)
    if json_file is None:
        typer.echo(as_text(found))


def describe(backend: Any) -> dict[str, Any]:
    """Describe a backend of a pipeline in types that JSON supports.

    Returns
    -------
    dict
        ``pipeline`` and ``family``, names of classes; ``prediction_type``; ``image_size``, height
        and width in pixels or None; ``latent_channels``; ``reads``, "text" or "class indices";
        ``schedule``: ``n_timesteps``, and ``log_snr`` at the first and last of them;
        ``learned_variance``; ``identity``; ``parameters`` of each network; ``memory_bytes`` of
        all weights, by dtype.
    """
    pipeline = backend.pipeline
    family = find_family([cls.__name__ for cls in type(pipeline).__mro__], "this model")
    alpha, sigma = (level.double() for level in (backend.schedule.alpha, backend.schedule.sigma))
    log_snr = 2 * (alpha / sigma).log()
    parameters = {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name, network in pipeline.components.items()
        if isinstance(network, torch.nn.Module)
    }
    return {
        "pipeline": type(pipeline).__name__,
        "family": type(family).__name__,
        "prediction_type": backend.prediction_type,
        "image_size": None if backend.image_size is None else list(backend.image_size),
        "latent_channels": int(family.latent_channels(pipeline)),
        "reads": "text" if backend.text_conditional else "class indices",
        "schedule": {
            "n_timesteps": backend.schedule.n_timesteps,
            "log_snr": [_finite(log_snr[0]), _finite(log_snr[-1])],
        },
        "learned_variance": bool(backend.learned_variance),
        "identity": backend.identity(),
        "parameters": parameters,
        "memory_bytes": {name: size * sum(parameters.values()) for name, size in BYTES.items()},
    }


def _finite(value: torch.Tensor) -> float | None:
    """Return a number, or None for the infinite log-SNR of a level without noise or signal."""
    return float(value) if bool(value.isfinite()) else None


def as_text(found: dict[str, Any]) -> str:
    """Format a description as lines."""
    size, schedule = found["image_size"], found["schedule"]
    ends = ["infinite" if end is None else f"{end:.1f}" for end in schedule["log_snr"]]
    identity = found["identity"]
    networks = ", ".join(f"{name} {n / 1e6:,.1f}" for name, n in found["parameters"].items())
    memory = ", ".join(f"{name} {n / GIB:.3g}" for name, n in found["memory_bytes"].items())
    lines = {
        "model": f"{identity['name'] or 'in memory'} (revision {identity['revision'] or 'none'})",
        "pipeline": f"{found['pipeline']}, family {found['family']}",
        "reads": found["reads"],
        "prediction type": found["prediction_type"],
        "size": "any" if size is None else f"{size[0]} x {size[1]} pixels",
        "latent channels": found["latent_channels"],
        "schedule": f"{schedule['n_timesteps']} timesteps, log-SNR from {ends[0]} to {ends[1]}",
        "learned variance": "yes" if found["learned_variance"] else "no",
        "configuration": identity["config_sha256"],
        "parameters": f"{networks} million",
        "memory": f"{memory} GiB of weights",
    }
    return "\n".join(f"{name:<18}{value}" for name, value in lines.items())
