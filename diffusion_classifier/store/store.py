"""ErrorStore: a look at the errors that ``memory`` keeps, and their care."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputValueError, MissingFileError, StoreError
from ..records.table import ErrorTable
from ..utils.display import short_repr
from .database import Database
from .folder import StoreFolder
from .keys import Content
from .memory import Memory
from .questions import (
    contents_of_kind,
    count_errors,
    draws_of,
    find_network,
    find_networks,
    find_tape,
    id_of,
    image_keys,
    keys_of,
    made_by_of,
    prompts_of,
)
from .schema import BusyFileError, DamagedStoreError
from .tables import as_table


class StoreInfo(NamedTuple):
    """What a store holds.

    Attributes
    ----------
    images, prompts, draws : int
        Numbers of different ones.
    errors : int
        Number of errors; those that several files hold count several times.
    bytes, files : int
        Size on disk and number of files, without those set aside.
    models : list of dict
        Of each network, with its dtype, image format and loss: ``id``, ``errors`` and ``made_by``,
        as in :class:`~diffusion_classifier.ErrorTable`.
    """

    images: int
    prompts: int
    draws: int
    errors: int
    bytes: int
    files: int
    models: list[dict[str, Any]]


class Verification(NamedTuple):
    """Outcome of ``ErrorStore.verify``.

    Attributes
    ----------
    errors : int
        Number of errors that are as they were written.
    damaged : list of str
        Names of the files that were damaged, and have been set aside.
    """

    errors: int
    damaged: list[str]


class ErrorStore:
    """The errors in a folder that was passed as ``memory``.

    ``len(store)`` is its number of images. Whatever its size, methods hold one image's errors at a
    time, or a page of keys; only ``table`` holds all that it returns.

    Parameters
    ----------
    folder : str or path-like
        A folder that does not exist yet is an empty store.

    Raises
    ------
    NotAFolderError
        If it is a file.
    StoreError
        In all methods, if the folder cannot be read, or a newer release wrote to it.

    Examples
    --------
    >>> import tempfile
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.backends import GaussianBackend
    >>> from diffusion_classifier.store import ErrorStore
    >>> folder = tempfile.mkdtemp()
    >>> backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    >>> clf = DiffusionClassifier(backend, memory=folder, random_state=0).fit(None, [0, 1])
    >>> clf.predict([[-2.0], [3.0], [0.5]]).tolist()
    [0, 1, 1]
    >>> store = ErrorStore(folder)
    >>> len(store), store.info().prompts, store.verify().damaged
    (3, 2, [])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._opened().close()  # checks the folder

    def __len__(self) -> int:
        with self._opened() as folder:
            return sum(1 for _ in image_keys(folder))

    def __repr__(self) -> str:
        return f"ErrorStore({short_repr(str(self.folder))})"

    def _opened(self) -> StoreFolder:
        return StoreFolder(self.folder)

    # ------------------------------------------------------------------ what there is

    def info(self) -> StoreInfo:
        """Count what the store holds.

        Returns
        -------
        StoreInfo
        """
        with self._opened() as folder:
            networks = find_networks(folder)
            counts = count_errors(folder)
            prompts = {c for found in folder.ask(contents_of_kind("prompt")) for c in found}
            draws = {key for found in folder.ask(draws_of) for key in found}
            totals = dict.fromkeys(networks, 0)
            for (network, _), n in counts.items():
                totals[network] = totals.get(network, 0) + n
            return StoreInfo(
                images=sum(1 for _ in image_keys(folder)),
                prompts=len(prompts),
                draws=len(draws),
                errors=sum(counts.values()),
                bytes=sum(path.stat().st_size for path in folder.files),
                files=len(folder.files),
                models=[
                    {"id": id_of(key), "errors": totals[key], "made_by": made_by_of(content)}
                    for key, content in networks.items()
                ],
            )

    def table(
        self,
        X: Any = None,
        *,
        prompts: Sequence[str] | None = None,
        model: str | None = None,
        seed: int | None = None,
    ) -> ErrorTable:
        """Return errors as a table, without the network.

        Parameters
        ----------
        X : images of length N, optional
            See ``DiffusionClassifier.predict``. By default all images of the store, in an order of
            its own.
        prompts : sequence of str, optional
            By default all that have errors. For networks that know classes by index, a prompt is
            ``"class 3"``.
        model : str, optional
            A model's ``id``, or the start of it, or its name, as ``info()`` lists them. Needed if
            there are several.
        seed : int, optional
            Key of the draws, ``clf.seed_``. By default that of the draws with the most errors.

        Returns
        -------
        ErrorTable
            Each prompt is a class of its own, with equal weights and priors. Images that lack
            errors of a prompt are listed in ``skipped``.

        Raises
        ------
        InputValueError
            If the store has no such model, prompt or seed, or no image has errors of every prompt.
        """
        with self._opened() as folder:
            network = find_network(folder, model)
            found = folder.ask(lambda database: prompts_of(database, network.key))
            known = sorted({prompt for part in found for prompt in part})
            wanted = known if prompts is None else [Content("prompt", p) for p in prompts]
            for prompt in wanted:
                if prompt not in known:
                    raise InputValueError(
                        f"the store has no errors of the prompt {short_repr(prompt.text)}; it has "
                        f"{len(known)} prompts, {short_repr([p.text for p in known])}."
                    )
            tape = find_tape(folder, network.key, seed)
            keys = list(image_keys(folder, network.key)) if X is None else keys_of(X, network)
            memory = Memory(folder, network, wanted, tape, keys.__getitem__)
            return as_table(memory, len(keys), network, wanted, tape)

    def to_parquet(self, path: str | os.PathLike[str], X: Any = None, **options: Any) -> None:
        """Write errors to a Parquet file, which ``ErrorTable.from_parquet`` reads.

        Parameters
        ----------
        path : str or path-like
        X : images of length N, optional
        **options
            ``prompts``, ``model`` and ``seed`` of :meth:`table`.
        """
        self.table(X, **options).to_parquet(path)

    # ------------------------------------------------------------------ care

    def merge(self, other: ErrorStore | str | os.PathLike[str]) -> int:
        """Add all errors of another store, such as that of another machine.

        Merging into a new folder also makes one file of many, in which look-ups are faster.

        Parameters
        ----------
        other : ErrorStore or folder
            Its damaged rows are left out, with a warning, and its files of an older format are
            converted.

        Returns
        -------
        int
            Number of rows that were read: one per image, prompt and unbroken sequence of draws.

        Raises
        ------
        InputValueError
            If it is this store.
        MissingFileError
            If there is no such folder.
        StoreError
            If errors cannot be added, or a file of the other store is locked.
        """
        source = other.folder if isinstance(other, ErrorStore) else Path(other)
        if os.path.realpath(source) == os.path.realpath(self.folder):
            raise InputValueError(f"{self!r} cannot be merged with itself; pass another store.")
        if not source.exists():
            raise MissingFileError(f"there is no store {short_repr(str(source))}; check the path.")
        n_rows = 0
        with self._opened() as target, StoreFolder(source) as folder:
            for path in folder.files:
                damaged: list[str] = []
                try:
                    n_rows += target.copy(folder.open(path), damaged)
                except DamagedStoreError as error:
                    damaged.append(str(error))
                except BusyFileError as error:
                    raise _in_use(path) from error
                if damaged:
                    warnings.warn(
                        f"{short_repr(str(path))} has damaged rows, which were left out "
                        f"({damaged[0]}).",
                        UserWarning,
                        stacklevel=2,
                    )
        return n_rows

    def prune(self, *, model: str) -> int:
        """Remove the errors of a model, and give their room back.

        Parameters
        ----------
        model : str
            See :meth:`table`.

        Returns
        -------
        int
            Number of errors that were removed.

        Raises
        ------
        InputValueError
            If the store has no such model.
        StoreError
            If a process is using a file, or it cannot be written.
        """
        with self._opened() as folder:
            network = find_network(folder, model)
            counts = count_errors(folder)
            files = folder.files
        for path in files:
            try:
                database = Database(path, write=True)
                try:
                    for number in database.find_ids([network.key]):
                        database.remove_network(number)
                finally:
                    database.close()
            except BusyFileError as error:
                raise _in_use(path) from error
            except DamagedStoreError as error:
                raise StoreError(
                    f"{short_repr(str(path))} is damaged ({error}); call verify() first."
                ) from error
        return sum(n for (key, _), n in counts.items() if key == network.key)

    def verify(self) -> Verification:
        """Read all errors, and set files aside that are damaged; their sound rows are kept.

        Returns
        -------
        Verification

        Warns
        -----
        UserWarning
            For each damaged file.
        """

        def read(database: Database) -> int:
            database.check()
            return sum(len(row.errors) // row.size for row in database.rows())

        with self._opened() as folder:
            before = set(folder.files)
            n_errors = sum(folder.ask(read))
            folder.refresh()
            damaged = [path.name for path in sorted(before - set(folder.files))]
            return Verification(n_errors, damaged)


def _in_use(path: Path) -> StoreError:
    return StoreError(f"{short_repr(str(path))} is in use by another process; wait for it.")
