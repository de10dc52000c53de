"""Models loaded by name, each kept so that it is loaded once per process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...utils.locks import fork_safe_lock
from .origin import INDEX, Origin, local_folder, read_index

Stamp = tuple[tuple[str, int, int], ...]  # name, size and time of change of every file

Model = TypeVar("Model")

_MODELS: list[tuple[Origin, Stamp, Any]] = []  # an Origin may not be hashable
_LOCK = fork_safe_lock()


def cached(origin: Origin, make: Callable[[Origin], Model]) -> Model:
    """The model of an origin, made once per process, and again if its folder has changed.

    Parameters
    ----------
    origin : Origin
    make : callable
        ``make(origin)`` loads the model; one origin is always made by the same function.

    Returns
    -------
    object
        What ``make`` returned, the first time.
    """
    with _LOCK:
        stamp = _stamp(origin)
        for entry in _MODELS:
            known, when, model = entry
            if known == origin and when == stamp:
                return model
            if known == origin:
                _MODELS.remove(entry)
                break
        model = make(origin)
        _MODELS.append((origin, stamp, model))
        return model


def clear_model_cache() -> None:
    """Forget the models loaded by name, the embedded one too; the next use loads them again.

    Memory is freed once no fitted classifier holds a model either. A folder that was written over
    needs no call: it is loaded again by the next ``fit``. A model of the Hub is looked up once,
    until this is called.

    Examples
    --------
    >>> from diffusion_classifier.backends import clear_model_cache, load_embedded
    >>> before = load_embedded().pipeline
    >>> clear_model_cache()
    >>> load_embedded().pipeline is before
    False
    """
    with _LOCK:
        _MODELS.clear()


def _stamp(origin: Origin) -> Stamp:
    """What changes with the model in a local folder, not with files beside it; empty for an id."""
    folder = local_folder(origin)
    if folder is None:
        return ()
    parts = [folder / name for name in read_index(folder / INDEX, origin.name)]
    files = [folder / INDEX, *(path for part in parts for path in part.glob("*") if path.is_file())]
    states = [(str(path.relative_to(folder)), path.stat()) for path in sorted(files)]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
