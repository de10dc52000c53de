"""Callbacks: objects that are told how a prediction goes on, image by image.

``DiffusionClassifier(callbacks=[...])`` calls each of them in turn:

    on_start(start)     before the first image
    on_round(state)     after each round of an image at which classes may be dropped
    on_image(result)    when an image is decided, in the order in which races end
    on_end(end)         after the last one, and also after an error or Ctrl-C

They change no result. What they raise ends the prediction. Images whose answers come from an
ErrorTable do not race, so nothing is called. ``fit`` calls nothing either.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .utils.constraints import Integers, check

__all__ = [
    "Callback",
    "LogProgress",
    "RaceEnd",
    "RaceResult",
    "RaceRound",
    "RaceStart",
    "Tenths",
]


class RaceStart(NamedTuple):
    """What is known before a prediction.

    Attributes
    ----------
    n_images : int
        Number of images in X.
    classes : ndarray of shape (K,)
        Labels, in the order of ``RaceResult.probabilities``.
    max_evaluations : int
        Maximum number of rows through the network per image.
    """

    n_images: int
    classes: NDArray[Any]
    max_evaluations: int


class RaceResult(NamedTuple):
    """The answer to one image.

    Attributes
    ----------
    image : int
        Index of the image in X.
    label : object
        The most probable class, one of ``RaceStart.classes``.
    probability : float
        Its probability.
    probabilities : ndarray of shape (K,), dtype float64
        Probabilities of all classes; they sum to 1.
    n_evaluations : int
        Rows through the network that the image's race used.
    """

    image: int
    label: Any
    probability: float
    probabilities: NDArray[np.float64]
    n_evaluations: int


class RaceRound(NamedTuple):
    """How an image's race stands after a round.

    Attributes
    ----------
    image : int
        Index of the image in X.
    n_draws : int
        Draws taken so far.
    n_evaluations : int
        Rows through the network so far.
    active : ndarray of shape (K,), dtype bool
        Which classes are still in the race.
    probabilities : ndarray of shape (K,), dtype float64
        Probabilities of all classes if the race ended now.
    low, high : ndarray of shape (K,), dtype float64
        Their 95 % intervals at this moment (:mod:`diffusion_classifier.scoring.interval`).
    """

    image: int
    n_draws: int
    n_evaluations: int
    active: NDArray[np.bool_]
    probabilities: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class RaceEnd(NamedTuple):
    """How a prediction ended.

    Attributes
    ----------
    n_images : int
        Number of images in X.
    n_answered : int
        Number of images that were decided.
    n_skipped : int
        Number of images that were skipped so far, with ``on_error="skip"``.
    n_evaluations : int
        Sum of ``n_evaluations`` of the decided images.
    seconds : float
        Time since ``on_start``.
    error : BaseException or None
        What ended the prediction early: an error, or KeyboardInterrupt.
    """

    n_images: int
    n_answered: int
    n_skipped: int
    n_evaluations: int
    seconds: float
    error: BaseException | None


class Callback:
    """Base class of callbacks: subclass it, and override what you need.

    Clones of an estimator share its callbacks. Saved classifiers do not hold them.

    Examples
    --------
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.callbacks import Callback
    >>> from diffusion_classifier.datasets import load_scenes
    >>> from diffusion_classifier.pruners import NoPruning
    >>> class Print(Callback):
    ...     def on_image(self, result):
    ...         print(result.image, result.n_evaluations)
    >>> clf = DiffusionClassifier(pruner=NoPruning(max_draws=8), callbacks=[Print()])
    >>> clf = clf.fit(None, ["red digit", "blue digit"])
    >>> answers = clf.predict(load_scenes("test", n_samples=2).images)
    0 16
    1 16
    """

    def on_start(self, start: RaceStart) -> None:
        """Do something before the first image."""

    def on_round(self, state: RaceRound) -> None:
        """Do something about a race that goes on, or has just been decided.

        The last round of an image comes before its ``on_image``. An image that is decided from the
        start has no rounds. With ``on_error="skip"`` a race may start again.
        """

    def on_image(self, result: RaceResult) -> None:
        """Do something about an image that is decided."""

    def on_end(self, end: RaceEnd) -> None:
        """Do something after the last image, or after what ended the prediction."""

    def __sklearn_clone__(self) -> Self:
        return self


class Tenths:
    """Say when another tenth of the work is done, for logs: one line each.

    Parameters
    ----------
    total : int
        Number of images.

    Examples
    --------
    >>> from diffusion_classifier.callbacks import Tenths
    >>> tenths = Tenths(4)
    >>> [tenths.line(n) is not None for n in (0, 1, 1, 4)]
    [False, True, False, True]
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._tenth, self._start = 0, time.perf_counter()

    def line(self, n: int) -> str | None:
        """Return a line of text if n images reach another tenth, else None."""
        tenth = 10 * n // max(self.total, 1)
        if tenth <= self._tenth:
            return None
        self._tenth = tenth
        elapsed = time.perf_counter() - self._start
        left = elapsed / n * (self.total - n)
        return (
            f"{100 * n // max(self.total, 1)}%, {n}/{self.total} images, "
            f"{_minutes(elapsed)} so far, {_minutes(left)} left"
        )


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class LogProgress(Callback):
    """Log a line per tenth of the images, and one at the end.

    Parameters
    ----------
    logger : logging.Logger or str, default="diffusion_classifier"
        Logger, or its name.
    level : int, default=logging.INFO
        Level of the messages. An early end is a warning.

    Raises
    ------
    InputValueError
        If ``level`` is not a number of 0 or more.

    Examples
    --------
    >>> import logging, sys
    >>> from diffusion_classifier import DiffusionClassifier
    >>> from diffusion_classifier.callbacks import LogProgress
    >>> logging.basicConfig(level=logging.INFO)
    >>> DiffusionClassifier(callbacks=[LogProgress("my.run")]).callbacks
    [LogProgress('my.run')]
    """

    def __init__(
        self, logger: logging.Logger | str = "diffusion_classifier", level: int = logging.INFO
    ) -> None:
        check("level", level, Integers(0))
        self.logger, self.level = logger, level
        self._tenths, self._n = Tenths(0), 0

    def __repr__(self) -> str:
        name = getattr(self.logger, "name", self.logger)
        return f"LogProgress({name!r})"

    def on_start(self, start: RaceStart) -> None:
        self._tenths, self._n = Tenths(start.n_images), 0
        self._log(self.level, "%d images, %d classes: started", start.n_images, len(start.classes))

    def on_image(self, result: RaceResult) -> None:
        self._n += 1
        line = self._tenths.line(self._n)
        if line is not None:
            self._log(self.level, "%s", line)

    def on_end(self, end: RaceEnd) -> None:
        level, how = self.level, "done"
        if end.error is not None:
            level, how = max(self.level, logging.WARNING), f"ended by {type(end.error).__name__}"
        self._log(
            level,
            "%d of %d images answered, %d skipped, %d evaluations in %.1f s: %s",
            *(end.n_answered, end.n_images, end.n_skipped, end.n_evaluations, end.seconds, how),
        )

    def _log(self, level: int, *message: Any) -> None:
        logger = self.logger
        if isinstance(logger, str):
            logger = logging.getLogger(logger)
        logger.log(level, *message)


class Watch:
    """Counts decided images, and tells the callbacks.

    Parameters
    ----------
    callbacks : sequence of Callback
    start : RaceStart
    """

    def __init__(self, callbacks: Sequence[Callback], start: RaceStart) -> None:
        self.callbacks, self.start = callbacks, start
        self.n_answered = self.n_evaluations = 0
        self.began = time.perf_counter()

    def each(self, results: Iterable[Any], log_posterior: Callable[[Any], Any]) -> Iterator[Any]:
        """Yield results, and tell the callbacks of each once the caller has kept it.

        So what a callback raises, or Ctrl-C while it runs, loses no result.
        """
        for result in results:
            self.n_answered += 1
            self.n_evaluations += result.n_evaluations
            yield result
            if self.callbacks:
                self._tell(result, log_posterior(result))

    def on_look(self, state_of: Callable[[Any], RaceRound]) -> Callable[[Any], None] | None:
        """Return what tells the callbacks of a round; None if none of them wants to know."""
        own = [
            each
            for each in self.callbacks
            if getattr(each.on_round, "__func__", None) is not Callback.on_round
        ]

        def tell(result: Any) -> None:
            state = state_of(result)
            for callback in own:
                callback.on_round(state)

        return tell if own else None

    def _tell(self, result: Any, log_posterior: Any) -> None:
        probabilities = np.exp(np.asarray(log_posterior, dtype=np.float64))
        best = int(probabilities.argmax())
        answer = RaceResult(
            image=result.image,
            label=self.start.classes[best : best + 1].tolist()[0],
            probability=float(probabilities[best]),
            probabilities=probabilities,
            n_evaluations=int(result.n_evaluations),
        )
        for callback in self.callbacks:
            callback.on_image(answer)

    def end(self, n_skipped: int, error: BaseException | None) -> RaceEnd:
        """Return how it ended."""
        seconds = time.perf_counter() - self.began
        counts = self.n_answered, n_skipped, self.n_evaluations
        return RaceEnd(self.start.n_images, *counts, seconds, error)


@contextmanager
def watched(
    callbacks: Sequence[Callback], start: RaceStart, skipped: Sized = ()
) -> Iterator[Watch]:
    """Call ``on_start`` and, whatever happens, ``on_end`` of those that were started.

    Parameters
    ----------
    callbacks : sequence of Callback
    start : RaceStart
    skipped : collection
        Images that are skipped; it may grow until the end.

    Yields
    ------
    Watch
        Its ``each`` calls ``on_image``.
    """
    watch, error = Watch(callbacks, start), None
    started: list[Callback] = []
    try:
        for callback in callbacks:
            callback.on_start(start)
            started.append(callback)
        yield watch
    except BaseException as raised:
        error = raised
        raise
    finally:
        end = watch.end(len(skipped), error)
        with ExitStack() as stack:  # one that raises does not keep others from ending
            for callback in reversed(started):
                stack.callback(callback.on_end, end)
