"""The errors of one race, looked up in a store and added to it.

Errors are looked up once per image, when its race begins. Those that the network computes are
written whenever 30 seconds have passed, also in the middle of an image, and at the end of the race,
however it ends. A killed process thus loses 30 seconds of work and one step at most, or two steps
on a CUDA device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import StoreError
from ..race.recorded import RecordedErrors
from ..race.source import Answer, ErrorSource, Request
from .database import Database
from .folder import StoreFolder
from .keys import Content, TapeRecord
from .schema import Row

COMMIT_SECONDS = 30.0
_MOST_PENDING = 2**18  # errors that are kept in memory before they are written
_MOST_REQUESTS = 2**14
_MOST_TAPES = 256  # whose places are remembered


class _Ids(NamedTuple):
    """What a race asks for, as one file numbers it."""

    network: int | None
    prompts: Mapping[int, bytes]


class _Pending(NamedTuple):
    """Errors [A, J] that are not yet written."""

    start: int
    prompts: NDArray[np.int64]
    errors: NDArray[np.floating]


class Memory:
    """Errors of one race, looked up in a store and added to it.

    Use it as a context manager: the last errors are written at its end.

    Parameters
    ----------
    folder : StoreFolder
    network : Content
    prompts : sequence of Content of length P
    tape : TapeRecord
        The draws of the race, as far as its budget goes.
    key_of : callable
        Maps the index of an image to its key.
    """

    def __init__(
        self,
        folder: StoreFolder,
        network: Content,
        prompts: Sequence[Content],
        tape: TapeRecord,
        key_of: Callable[[int], bytes],
    ) -> None:
        self.n_prompts = len(prompts)
        self._folder, self._network, self._prompts = folder, network, prompts
        self._network_key = network.key
        self._key_of = key_of
        self._keys: dict[int, bytes] = {}  # of images in the race
        self._known: dict[int, Tensor] = {}
        self._tape = tape.content()
        # Prompts and draws may repeat. Errors are looked up once and copied to all their places.
        self._draws, self._draw_of = np.unique(tape.keys, return_inverse=True)
        prompt_keys = [prompt.key for prompt in prompts]
        self._column = {key: p for p, key in enumerate(dict.fromkeys(prompt_keys))}
        self._column_of = np.array([self._column[key] for key in prompt_keys])
        self._places: dict[bytes, NDArray[np.int64]] = {}  # of the draws of stored tapes
        self._ids: dict[Database, _Ids] = {}
        self._pending: dict[bytes, list[_Pending]] = {}
        self._n_pending = self._n_requests = 0
        self._since = time.monotonic()  # of the latest commit

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *traceback: object) -> None:
        try:
            if not isinstance(error, StoreError):
                self.commit()
        except StoreError as failure:
            if error is None:
                raise
            error.add_note(str(failure))
        finally:
            self._folder.close()

    def source(self, engine: ErrorSource, on_recorded: Callable[[int], None]) -> ErrorSource:
        """Return a source that looks errors up, and keeps what the engine computes."""
        return RecordedErrors(self, _Keeping(engine, self), on_recorded)

    # ------------------------------------------------------------------ looking up

    def known(self, image: int) -> Tensor:
        """Return the errors [P, J] of an image that were kept; NaN where there are none."""
        if image not in self._known:
            self._known[image] = self._look_up(self._key(image))
        return self._known[image]

    def renew(self) -> None:
        """Write what was added, and look errors up again: races begin again."""
        self.commit()
        self._known.clear()

    def release(self, image: int) -> None:
        self._known.pop(image, None)
        self._keys.pop(image, None)

    def _key(self, image: int) -> bytes:
        if image not in self._keys:
            self._keys[image] = self._key_of(image)
        return self._keys[image]

    def _look_up(self, image: bytes) -> Tensor:
        rows = [row for part in self._folder.ask(lambda d: self._rows(d, image)) for row in part]
        dtype = np.result_type(np.float32, *(errors.dtype for _, _, errors in rows))
        found = np.full((len(self._column), len(self._draws)), np.nan, dtype)
        for column, places, errors in rows:
            found[column, places] = errors
        known = found[self._column_of][:, self._draw_of]
        some = np.flatnonzero(~np.isnan(known).all(0))
        return torch.from_numpy(known[:, : some[-1] + 1 if len(some) else 0].copy())

    def _rows(
        self, database: Database, image: bytes
    ) -> list[tuple[int, NDArray[np.int64], NDArray[np.floating]]]:
        """Return the column, places among the draws and errors of each row of a file."""
        ids = self._ids.get(database)
        if ids is None:
            network = database.find_ids([self._network_key])
            prompts = database.find_ids(self._column) if network else {}
            ids = self._ids[database] = _Ids(next(iter(network), None), prompts)
        if ids.network is None:
            return []
        found = []
        for row in database.find(ids.network, self._network_key, image, ids.prompts):
            errors = row.values
            places = self._places_of(database, row.tape)[row.start : row.start + len(errors)]
            is_asked = places >= 0  # other draws are of no use here
            asked = errors[: len(places)][is_asked]
            found.append((self._column[row.prompt], places[is_asked], asked))
        return found

    def _places_of(self, database: Database, tape: bytes) -> NDArray[np.int64]:
        """Return the place of each draw of a stored tape among this race's draws, or -1."""
        if tape not in self._places:
            if len(self._places) >= _MOST_TAPES:
                self._places.clear()
            keys = TapeRecord.from_text(database.content(tape).text).keys
            places = np.searchsorted(self._draws, keys).clip(max=len(self._draws) - 1)
            self._places[tape] = np.where(self._draws[places] == keys, places, -1)
        return self._places[tape]

    # ------------------------------------------------------------------ adding

    def prepare(self) -> None:
        """Raise a StoreError, before any work, if errors cannot be added."""
        self._folder.prepare()

    def add(self, request: Request, errors: Tensor) -> None:
        """Keep the errors [A, J] that answer a request."""
        pending = _Pending(request.start, request.prompts.numpy(), errors.numpy())
        self._pending.setdefault(self._key(request.image), []).append(pending)
        self._n_pending += pending.errors.size
        self._n_requests += 1

    def commit_if_due(self) -> None:
        """Write what was added, if it is old or much."""
        if self._n_requests and (
            time.monotonic() - self._since >= COMMIT_SECONDS
            or self._n_pending >= _MOST_PENDING
            or self._n_requests >= _MOST_REQUESTS
        ):
            self.commit()

    def commit(self) -> None:
        """Write what was added.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        if not self._n_requests:
            return
        contents = [self._network, self._tape, *self._prompts]
        self._folder.add(contents, self._new_rows())
        self._pending, self._n_pending, self._n_requests = {}, 0, 0
        self._since = time.monotonic()
        self._folder.refresh()
        self._ids.clear()  # files may hold more by now

    def _new_rows(self) -> list[Row]:
        """Join what was added: one row per image, prompt and unbroken sequence of draws."""
        tape, keys = self._tape.key, list(self._column)
        rows = []
        for image, parts in self._pending.items():
            first = min(part.start for part in parts)
            last = max(part.start + part.errors.shape[1] for part in parts)
            dtype = np.result_type(*(part.errors.dtype for part in parts)).newbyteorder("<")
            errors = np.full((len(keys), last - first), np.nan, dtype)
            for part in parts:
                start = part.start - first
                stop = start + part.errors.shape[1]
                errors[self._column_of[part.prompts], start:stop] = part.errors
            is_known = ~np.isnan(errors)
            for column in np.flatnonzero(is_known.any(1)).tolist():
                edges = np.flatnonzero(np.diff(is_known[column], prepend=False, append=False))
                for start, stop in edges.reshape(-1, 2).tolist():
                    data = errors[column, start:stop].tobytes()
                    place = (self._network_key, image, keys[column], tape, first + start)
                    rows.append(Row(*place, dtype.itemsize, data))
        return rows


class _Keeping(ErrorSource):
    """Error source that adds what another one computes to a memory."""

    def __init__(self, source: ErrorSource, memory: Memory) -> None:
        self.n_prompts = source.n_prompts
        self._source, self._memory = source, memory

    @property
    def steps_at_once(self) -> int:
        return self._source.steps_at_once

    @property
    def rows_wanted(self) -> int:
        return self._source.rows_wanted

    @property
    def batch_rows(self) -> int:
        return self._source.batch_rows

    @property
    def few_rows(self) -> int:
        return self._source.few_rows

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        return self.begin(requests)()

    def begin(self, requests: Sequence[Request]) -> Answer:
        self._memory.prepare()
        computed = self._source.begin(requests)

        def answer() -> list[Tensor]:
            found = computed()
            for request, errors in zip(requests, found, strict=True):
                self._memory.add(request, errors)
            self._memory.commit_if_due()
            return found

        return answer

    def release(self, image: int) -> None:
        self._source.release(image)
