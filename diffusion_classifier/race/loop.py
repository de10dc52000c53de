r"""The race loop: rounds of draws, until one class is left or the budget is spent.

    round r:   errors of every active prompt on the round's draws
               contributions c_pj = w(t_j) err_pj / q_j - log prior
               active <- pruner.select(contributions, active)

A prompt or class is *active* while it is still in the race. A *window* of several images races
side by side to fill the batches: when an image is decided, the next one takes its place. The
result of an image does not depend on the others. An image may *start* with some of the prompts and
with class priors of its own; if one class is all it starts with, it is decided without errors.

A *step* asks for errors of some images of the window. Where a device computes while the host goes
on, two steps are under way: the host judges the images of one while the device works on the other.

Errors come from an *error source*: the engine runs the network, a recorded table looks them up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NonFiniteOutputError
from ..pruners.base import Pruner
from ..scoring.class_losses import Scoring
from .judging import Judge
from .planning import Planner
from .runner import Runner
from .source import Answer, ErrorSource, Request, Result, Start
from .tape import DrawTape


def run_race(
    source: ErrorSource,
    tape: DrawTape,
    pruner: Pruner,
    scoring: Scoring,
    images: Iterable[int],
    start: Callable[[int], Start] | None = None,
    on_look: Callable[[Result], None] | None = None,
) -> Generator[Result]:
    """Race the prompts of each image against each other.

    Parameters
    ----------
    source : ErrorSource
    tape : DrawTape
        The rounds of draws, limited to the budget.
    pruner : Pruner
    scoring : Scoring
    images : iterable of int
        Indices of the images to race, started in this order.
    start : callable, optional
        ``start(image)`` returns the prompts and priors that an image starts with; by default, all
        prompts and the priors of ``scoring``.
    on_look : callable, optional
        Called with the image's Result so far, each time that the pruner has decided about it.

    Yields
    ------
    Result
        One per image, in the order in which images are decided.
    """
    everyone = Start(torch.ones(source.n_prompts, dtype=torch.bool))
    starts = ((image, everyone if start is None else start(image)) for image in images)
    first_look = pruner.next_look(0)
    waiting = (
        Runner(image, active, scoring.log_prior if prior is None else prior, first_look)
        for image, (active, prior) in starts
    )
    planner, judge = Planner(source, tape, pruner), Judge(tape, pruner, scoring, on_look)
    window: dict[int, Runner] = {}  # by image
    steps: deque[_Step] = deque()  # under way
    try:
        while True:
            decided: list[Runner] = []
            under_way = {runner.image for step in steps for runner, _ in step.plan}
            free = [runner for image, runner in window.items() if image not in under_way]
            racing = _racing(free, window, waiting, scoring, decided, source.rows_wanted)
            # A second step begins only if it is full: the images wait for those of the first.
            plan = planner.step(racing, only_full=bool(steps))
            if not plan and not decided and not steps:
                return
            if plan:
                steps.append(_Step(plan, source.begin([request for _, request in plan])))
            if steps and (not plan or len(steps) == source.steps_at_once):
                decided += judge.finished(_record(source, planner, steps.popleft()))
            for runner in decided:
                window.pop(runner.image, None)
                source.release(runner.image)
                yield runner.result()
    finally:
        # What a device works on is paid for: a memory keeps it, whatever ended the race.
        for step in steps:
            with suppress(Exception):
                step.answer()


class _Step(NamedTuple):
    """Requests of images whose errors are under way."""

    plan: list[tuple[Runner, Request]]
    answer: Answer


def _racing(
    free: list[Runner],
    window: dict[int, Runner],
    waiting: Iterator[Runner],
    scoring: Scoring,
    decided: list[Runner],
    most_decided: int,
) -> Iterator[Runner]:
    """Yield the images of the window that are free, and then let new ones in.

    Those that are decided from the start go to ``decided``.
    """
    yield from free
    while len(decided) < most_decided and (runner := next(waiting, None)) is not None:
        if scoring.decided(runner.active):
            decided.append(runner)
        else:
            window[runner.image] = runner
            yield runner


def _record(source: ErrorSource, planner: Planner, step: _Step) -> list[Runner]:
    """Wait for the errors of a step, give them to its images, and return these."""
    for (runner, request), errors in zip(step.plan, _errors(source, planner, step), strict=True):
        runner.record(request, errors)
    return [runner for runner, _ in step.plan]


def _errors(source: ErrorSource, planner: Planner, step: _Step) -> list[Tensor]:
    """Wait for the errors of a step; those that it asks for ahead must not make it fail."""
    try:
        return step.answer()
    except NonFiniteOutputError:
        requests = [request for _, request in step.plan]
        if not any(request.n_ahead for request in requests):
            raise
        planner.looks_ahead = False
        return source.evaluate([request.without_ahead() for request in requests])
