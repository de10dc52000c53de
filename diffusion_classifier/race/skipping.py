"""Races that leave out images which cannot be read, or for which the network returns NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import NonFiniteOutputError
from .devices import Engines
from .engine import Engine
from .source import KnownErrors, Result

MOST_FAILURES = 8  # of the network in a row, for images that are skipped


def skipping(
    start: Callable[[Iterable[int]], Iterator[Result]],
    n_images: int,
    engine: Engine | Engines,
    memory: KnownErrors | None,
    skipped: dict[int, str],
) -> Iterator[Result]:
    """Race all images but those that cannot be read or make the network return NaN.

    When the network fails for an image, those beside it in the race begin again. If it fails for
    many in a row, the network is at fault, and its error is raised.
    """
    left = set(range(n_images))
    n_failures = 0  # since the last result
    while True:
        try:
            for result in start(_readable(sorted(left - skipped.keys()), engine, memory, skipped)):
                left.remove(result.image)
                n_failures = 0
                yield result
            return
        except NonFiniteOutputError as error:
            n_failures += 1
            if error.image is None or n_failures > MOST_FAILURES:
                raise
            skipped[error.image] = str(error)
            _release(error.image, engine, memory)
            if memory is not None:
                memory.renew()  # it has errors of the images beside


def _readable(
    images: Iterable[int],
    engine: Engine | Engines,
    memory: KnownErrors | None,
    skipped: Mapping[int, str],
) -> Iterator[int]:
    """Yield the images that can be read, when it is their turn to race."""
    for image in images:
        # An image of which there are errors has been encoded before.
        is_known = memory is not None and bool(memory.known(image).numel())
        if not is_known:
            engine.latent(image)  # reads it, and those that follow
        if image not in skipped:
            yield image
        else:
            _release(image, engine, memory)


def _release(image: int, engine: Engine | Engines, memory: KnownErrors | None) -> None:
    engine.release(image)
    if memory is not None:
        memory.release(image)
