"""One error source of several engines: each device computes the errors of some of the images.

    step:  requests of many images -> the device with the fewest rows so far, one after the other
           a thread per device evaluates its requests; the race goes on when all are done

The race itself stays in the calling thread, and with it callbacks, records and progress. Draws are
keyed, so that the errors do not depend on the device that computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from threading import Event
from typing import Self

import torch
from torch import Tensor

from ...backends.base import Backend, Conditioning
from ..batches import BatchSizeOption
from ..engine import Engine, Stopped
from ..source import ErrorSource, Request
from .copies import copy_to


@contextmanager
def engine_on(
    devices: Sequence[torch.device],
    backend: Backend,
    condition: Conditioning,
    encode: Callable[[Sequence[int]], Tensor],
    n_images: int,
    *,
    loss: str,
    batch_size: BatchSizeOption,
    on_evaluations: Callable[[int], None],
) -> Iterator[Engine | Engines]:
    """Make the engine of one device, or of several if there are more; see :class:`Engine`."""
    engine = Engine(
        backend,
        condition,
        encode,
        n_images,
        loss=loss,
        batch_size=batch_size,
        on_evaluations=on_evaluations,
    )
    if len(devices) < 2:
        yield engine
        return
    copies = [copy_to(backend, device) for device in devices]
    with Engines(engine, copies, on_evaluations) as engines:
        yield engines


class Engines(ErrorSource):
    """Error source that divides the images of each step among devices.

    Use it as a context manager: its threads end with the block.

    Parameters
    ----------
    engine : Engine
        Encodes all images.
    backends : sequence of Backend
        The network on each device.
    on_evaluations : callable
        Called with the number of evaluations after every step.
    """

    def __init__(
        self, engine: Engine, backends: Sequence[Backend], on_evaluations: Callable[[int], None]
    ) -> None:
        self.n_prompts = engine.n_prompts
        self._encoder, self._on_evaluations = engine, on_evaluations
        self._stop = Event()
        self._engines = [engine.beside(backend, self._stop) for backend in backends]

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(len(self._engines), thread_name_prefix="device")
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    @property
    def rows_wanted(self) -> int:
        return sum(engine.rows_wanted for engine in self._engines)

    @property
    def batch_rows(self) -> int:
        return self._engines[0].batch_rows

    @property
    def few_rows(self) -> int:
        return self._engines[0].few_rows

    def latent(self, image: int) -> Tensor:
        return self._encoder.latent(image)

    def release(self, image: int) -> None:
        for engine in (self._encoder, *self._engines):
            engine.release(image)

    def evaluate(self, requests: Sequence[Request]) -> list[Tensor]:
        """Compute the errors [A, J] of each request on one of the devices.

        Raises
        ------
        NetworkError
            What a device raises; the others stop before their next batch.
        """
        parts: list[list[int]] = [[] for _ in self._engines]
        n_rows = [0] * len(parts)
        for number, request in enumerate(requests):
            place = n_rows.index(min(n_rows))
            self._engines[place].adopt(request.image, self.latent(request.image))
            parts[place].append(number)
            n_rows[place] += request.n_rows
        futures = [
            self._pool.submit(self._evaluate, engine, [requests[number] for number in part])
            for engine, part in zip(self._engines, parts, strict=True)
            if part
        ]
        found: list[Tensor] = [torch.empty(0)] * len(requests)
        answers = self._results(futures)
        for part, errors in zip([part for part in parts if part], answers, strict=True):
            for number, own in zip(part, errors, strict=True):
                found[number] = own
        self._on_evaluations(sum(n_rows))
        return found

    def _evaluate(self, engine: Engine, requests: Sequence[Request]) -> list[Tensor]:
        """Evaluate in a thread; what fails there stops the other threads at once."""
        device = engine.backend.device
        try:
            # Kernels that are compiled on the way look at the current device, not at tensors.
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                return engine.evaluate(requests)
        except BaseException:
            self._stop.set()
            raise

    def _results(self, futures: Sequence[Future[list[Tensor]]]) -> list[list[Tensor]]:
        """Wait for all threads, also when Ctrl-C interrupts; raise what the first one raised."""
        try:
            wait(futures)
        except BaseException:
            self._stop.set()
            wait(futures)
            raise
        self._stop.clear()  # races may begin again without the image at which one failed
        errors = [future.exception() for future in futures]
        failures = [error for error in errors if error and not isinstance(error, Stopped)]
        if failures:
            raise failures[0]
        return [future.result() for future in futures]
