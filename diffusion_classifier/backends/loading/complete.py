"""Refuse networks with missing or mis-shaped weights, instead of filling them in.

diffusers and transformers load a network whose file lacks a tensor: they fill in random numbers or
whatever is in memory, and only log it. They do report it to callers who ask a network's
``from_pretrained`` for loading information. A pipeline's ``from_pretrained`` has no such option, so
it is added here while a pipeline loads. This honours all that the libraries know: tied weights,
renamed keys, shards, variants and quantisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError, InputFileError
from .cache import LOADING

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
LONGEST = 220  # characters of another library's message


@contextmanager
def complete_weights(folder: Path, name: str) -> Iterator[None]:
    """Raise an error for any component of ``folder`` that loads incompletely in the block.

    Parameters
    ----------
    folder : Path
        The pipeline's folder. Loading from elsewhere, in other threads, is left alone.
    name : str
        What messages call it.

    Raises
    ------
    InputFileError
        Names the component and the key.
    """
    from diffusers import ModelMixin, SchedulerMixin
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    options: dict[Any, dict[str, Any]] = {
        ModelMixin: {"output_loading_info": True},
        # otherwise its error does not name the key; diffusers' does
        PreTrainedModel: {"output_loading_info": True, "ignore_mismatched_sizes": True},
        PreTrainedTokenizerBase: {},
        SchedulerMixin: {},
    }
    with LOADING, ExitStack() as restore:
        for base, extra in options.items():
            original = base.__dict__["from_pretrained"]
            restore.callback(setattr, base, "from_pretrained", original)
            base.from_pretrained = classmethod(_checked(original.__func__, extra, folder, name))
        yield


def _checked(load: Any, extra: dict[str, Any], folder: Path, name: str) -> Any:
    """Wrap a ``from_pretrained`` so that it checks what it loads from ``folder``."""

    def from_pretrained(cls: Any, path: Any, *args: Any, **options: Any) -> Any:
        place = Path(path)
        if place.parent != folder or options.get("output_loading_info"):
            return load(cls, path, *args, **options)
        with explained_failure(f"the {place.name} of {name} cannot be loaded as {cls.__name__}"):
            loaded = load(cls, path, *args, **options, **extra)
        if not extra:
            return loaded
        network, info = loaded
        check_loaded(network, info, place.name, name)
        return network

    return from_pretrained


@contextmanager
def explained_failure(what: str) -> Iterator[None]:
    """Turn whatever a library raises over files that make no sense into an InputFileError."""
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError, InputError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise InputFileError(
            f"{what} ({type(error).__name__}: {reason}); its files or its configuration are "
            "damaged: copy or download the folder again."
        ) from error


def check_loaded(
    network: Any,
    info: dict[str, Any],
    component: str,
    name: str,
    advice: str = "copy or download the folder again",
) -> None:
    """Raise an error if a network lacks weights, or its configuration lacks some of its layers."""
    faults = [
        ("lack", info.get("missing_keys", ())),
        ("have the wrong shape for", [key for key, *_ in info.get("mismatched_keys", ())]),
        (
            "have layers that its config.json does not count, such as",
            _more_layers(info.get("unexpected_keys", ()), network),
        ),
    ]
    for fault, keys in faults:
        if keys:
            keys = sorted(keys)
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputFileError(
                f"the weights of the {component} of {name} {fault} {keys[0]!r}{more}; with them it "
                f"would predict at random: {advice}."
            )


def _more_layers(unexpected: Iterable[str], network: Any) -> list[str]:
    """Return keys that differ from the network's own only by the number of a layer.

    Any other key of which the network knows nothing is harmless, such as the other half of an
    autoencoder or of a text-and-image model.
    """
    unexpected = list(unexpected)
    if not unexpected:
        return []
    known = {NUMBER.sub("#", key) for key in network.state_dict()}
    return [key for key in unexpected if NUMBER.sub("#", key) in known]
