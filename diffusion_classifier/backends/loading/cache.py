"""Cache of the models loaded by name, so that each is loaded once per process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...utils.locks import fork_safe_lock
from .beside import config_folder, file_of
from .origin import INDEX, Origin, local_folder, read_index

Stamp = tuple[tuple[str, int, int], ...]  # name, size and modification time of every file

Model = TypeVar("Model")

_MODELS: list[tuple[Origin, Stamp, Any]] = []  # no dict: the options of an Origin are unhashable
LOADING = fork_safe_lock()


def cached(origin: Origin, make: Callable[[Origin], Model]) -> Model:
    """Return the model of an origin, loading it on first use and whenever its folder changes.

    Parameters
    ----------
    origin : Origin
    make : callable
        ``make(origin)`` loads the model. Always pass the same function for the same origin.

    Returns
    -------
    object
        The model that ``make`` returned, now or in an earlier call.
    """
    with LOADING:
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
    """Drop the cached models, including the embedded one; the next use loads them again.

    A model's memory is freed when no fitted classifier refers to it either. You need not call
    this after changing a local folder, as the next ``fit`` loads it again. A Hub id, in contrast,
    is not looked up again until you do.

    Examples
    --------
    >>> from diffusion_classifier.backends import clear_model_cache, load_embedded
    >>> before = load_embedded().pipeline
    >>> clear_model_cache()
    >>> load_embedded().pipeline is before
    False
    """
    with LOADING:
        _MODELS.clear()


def _stamp(origin: Origin) -> Stamp:
    """State of a local folder's index and component files; empty for a Hub id."""
    file = file_of(origin)
    folder = config_folder(origin) if file else local_folder(origin)
    if folder is None:
        return ()
    index = read_index(folder / INDEX, origin.name)
    parts = [path for path in folder.iterdir() if path.name in index and path.is_dir()]
    files = [folder / INDEX, *(path for part in parts for path in part.glob("*") if path.is_file())]
    files += [file] if file else []
    states = [(str(path), path.stat()) for path in sorted(files)]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
