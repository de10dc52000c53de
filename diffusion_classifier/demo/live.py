"""One visitor's race, round by round: predict_proba in a thread, told by a callback.

So the answer is that of ``clf.predict_proba``. To stop it, the callback raises.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import Any

from PIL import Image

from ..callbacks import Callback, RaceRound
from ..classifier import DiffusionClassifier
from ..errors import DiffusionClassifierError

_POLL = 0.2  # seconds after which a stop is noticed at the latest


class Stopped(DiffusionClassifierError):
    """The visitor stopped the race."""


class _Rounds(Callback):
    """Puts rounds into a queue, and raises when the race is to stop."""

    def __init__(self, rounds: queue.SimpleQueue[Any], stop: threading.Event) -> None:
        self._rounds, self._stop = rounds, stop

    def on_round(self, state: RaceRound) -> None:
        if self._stop.is_set():
            raise Stopped("stopped.")
        self._rounds.put(state)


def rounds_of(
    clf: DiffusionClassifier, image: Image.Image, stop: threading.Event
) -> Generator[RaceRound, None, None]:
    """Race one image, and yield how its race stands after each round.

    Parameters
    ----------
    clf : DiffusionClassifier
        Fitted.
    image : PIL.Image.Image
    stop : threading.Event
        Set by others to stop the race; and set if the iterator is closed early.

    Yields
    ------
    RaceRound
        The last one has the probabilities that ``predict_proba`` returns.

    Raises
    ------
    Stopped
        If it was stopped.
    DiffusionClassifierError
        As ``predict_proba`` raises it.
    """
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    clf = clf.set_params(callbacks=[_Rounds(told, stop)], verbose=0)

    def work() -> None:
        try:
            clf.predict_proba([image])
            told.put(None)
        except BaseException as error:
            told.put(error)

    thread = threading.Thread(target=work, name="race", daemon=True)
    thread.start()
    try:
        while True:
            try:
                state = told.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(state, BaseException):
                raise state
            if state is None:
                return
            yield state
    finally:
        stop.set()  # if the reader has gone
        thread.join()
