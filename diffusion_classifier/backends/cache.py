"""Models loaded by name, each kept so that it is loaded once per process."""

from __future__ import annotations

from ..locks import fork_safe_lock
from .loading import INDEX, Origin, local_folder, read_index
from .pipeline import DiffusersBackend

Stamp = tuple[tuple[str, int, int], ...]  # name, size and time of change of every file

_BACKENDS: list[tuple[Origin, Stamp, DiffusersBackend]] = []  # an Origin may not be hashable
_LOCK = fork_safe_lock()


def cached_backend(origin: Origin) -> DiffusersBackend:
    """The backend of an origin, loaded once per process, and again if its folder has changed."""
    with _LOCK:
        stamp = _stamp(origin)
        for entry in _BACKENDS:
            known, when, backend = entry
            if known == origin and when == stamp:
                return backend
            if known == origin:
                _BACKENDS.remove(entry)
                break
        backend = DiffusersBackend._load(origin)
        _BACKENDS.append((origin, stamp, backend))
        return backend


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
        _BACKENDS.clear()


def _stamp(origin: Origin) -> Stamp:
    """What changes with the model in a local folder, not with files beside it; empty for an id."""
    folder = local_folder(origin)
    if folder is None:
        return ()
    parts = [folder / name for name in read_index(folder / INDEX, origin.name)]
    files = [folder / INDEX, *(path for part in parts for path in part.glob("*") if path.is_file())]
    states = [(str(path.relative_to(folder)), path.stat()) for path in sorted(files)]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
