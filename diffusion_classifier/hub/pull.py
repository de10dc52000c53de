"""Load a classifier from the Hub, through the cache of huggingface_hub.

The cache holds links to its files, and may hold other files of the repository. The two files of a
saved classifier are copied out of it, and the copy is read as any saved folder is.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..backends.base import Backend
from ..backends.resolve import Pipeline
from ..classifier import DiffusionClassifier
from ..errors import DiffusionClassifierError, InputFileError, InputValueError, MissingFileError
from ..estimator.saving.files import LARGEST_STATE
from ..utils.display import short_repr
from ..utils.files import read_regular
from .network import FILES, Network, network_of
from .remote import check_repo_id, explained


def from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    backend: str | os.PathLike[str] | Backend | Pipeline | None = None,
    proposer: Any = None,
) -> DiffusionClassifier:
    """Load a classifier that :func:`push_to_hub` uploaded, without running code from the Hub.

    Only ``classifier.json`` and ``tensors.safetensors`` are downloaded, and read with the checks of
    :meth:`DiffusionClassifier.load`. The checksums detect damage and authenticate nothing: whoever
    can write to the repository chooses prompts, classes and the Hub id of the network. Give the
    commit as ``revision`` to get the same classifier each time.

    Parameters
    ----------
    repo_id : str
        Name of the repository, such as ``"owner/name"``.
    revision : str, optional
        Branch, tag or commit. By default the latest commit of ``main``.
    token : str or bool, optional
        For private or gated repositories of classifiers. By default that of ``hf auth login``,
        which is also used to load the network.
    cache_dir : str or path-like, optional
        Folder of the downloads. By default the cache of huggingface_hub.
    local_files_only : bool, default=False
        Whether to look in the cache only.
    backend : None, str, path-like or Backend, default=None
        The network. Needed if the card says so, as others cannot load the one it was fitted with.
    proposer : classifier, optional
        Needed if the classifier has a ``Shortlist``, whose proposer is not saved.

    Returns
    -------
    DiffusionClassifier
        Fitted; it predicts what the uploaded classifier predicted. Its attribute ``hub_`` is a
        dict of ``repo_id`` and ``revision``, the commit. ``save`` keeps it, ``fit`` removes it.

    Raises
    ------
    MissingFileError
        If there is no such repository, revision or file, or it is not in the cache while offline.
    InputFileError
        If access is refused, the Hub cannot be reached, or a file is not as ``save`` writes it.
    InputValueError
        If ``repo_id`` cannot be a repository, the network differs, or it is needed and not given.

    Examples
    --------
    >>> from diffusion_classifier.hub import from_hub
    >>> from_hub("no/such/name")
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: repo_id='no/such/name' is not the name of a \
repository, such as 'owner/name' (Repo id must be in the form 'repo_name' or \
'namespace/repo_name': 'no/such/name'. Use `repo_type` argument if needed).
    """
    from huggingface_hub import snapshot_download

    check_repo_id(repo_id)
    with explained(repo_id, revision):
        snapshot = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_files_only,
                allow_patterns=list(FILES),
            )
        )
    commit = snapshot.name
    place = f"{repo_id}@{commit}"
    with TemporaryDirectory() as folder:
        try:
            _copy(snapshot, Path(folder), place)
            network = network_of(Path(folder))
            if backend is None and network.is_missing:
                raise InputValueError(
                    f"{place} was fitted with a network that only its author has "
                    f"({_place_of(network)}); get the "
                    "same network and pass it: from_hub(repo_id, backend=...)."
                )
            clf = DiffusionClassifier.load(folder, backend=backend, proposer=proposer)
        except DiffusionClassifierError as error:
            if error.args:
                error.args = (str(error.args[0]).replace(folder, place), *error.args[1:])
            raise
    setattr(clf, "hub_", {"repo_id": repo_id, "revision": commit})  # noqa: B010
    return clf


def _place_of(network: Network) -> str:
    """Say where a network was, without the path of somebody's folder."""
    return "a folder" if network.kind == "folder" else short_repr(network.name)


def _copy(snapshot: Path, folder: Path, place: str) -> None:
    """Copy the two files out of the cache, where they are links to files of the same repository."""
    repository = snapshot.parents[1].resolve()
    for name in FILES:
        source = snapshot / name
        if not source.exists():
            raise MissingFileError(
                f"{place} has no {name}, so it holds no classifier that push_to_hub uploaded; "
                "pickles and other formats are not read."
            )
        target = source.resolve()
        if not target.is_relative_to(repository):
            raise InputFileError(
                f"{source} leads out of the cache of its repository; remove {snapshot} and "
                "download again."
            )
        most = LARGEST_STATE if name == FILES[0] else None
        (folder / name).write_bytes(read_regular(target, most))
