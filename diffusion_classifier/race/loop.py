r"""The race loop: rounds of draws, until one class is left or the budget is spent.

    round r:   errors of every active prompt on the round's draws
               contributions c_pj = w(t_j) err_pj / q_j - log prior
               active <- pruner.select(contributions, active)

A prompt or class is *active* while it is still in the race. A *window* of several images races
side by side to fill the batches: when an image is decided, the next one takes its place. The
result of an image does not depend on the others. An image may *start* with some of the prompts and
with class priors of its own; if one class is all it starts with, it is decided without errors.

Errors come from an *error source*: the engine runs the network, a recorded table looks them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ..errors import NonFiniteOutputError
from ..pruners.base import Pruner
from ..scoring.class_losses import Scoring
from .judging import Judge
from .planning import Planner
from .runner import Runner
from .source import ErrorSource, Request, Result, Start
from .tape import DrawTape


def run_race(
    source: ErrorSource,
    tape: DrawTape,
    pruner: Pruner,
    scoring: Scoring,
    images: Iterable[int],
    start: Callable[[int], Start] | None = None,
    on_look: Callable[[Result], None] | None = None,
) -> Iterator[Result]:
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
    while True:
        decided: list[Runner] = []
        plan = planner.step(_racing(window, waiting, scoring, decided, source.rows_wanted))
        if not plan and not decided:
            return
        for (runner, request), errors in zip(plan, _evaluate(source, planner, plan), strict=True):
            runner.record(request, errors)
        for runner in decided + judge.finished([runner for runner, _ in plan]):
            window.pop(runner.image, None)
            source.release(runner.image)
            yield runner.result()


def _racing(
    window: dict[int, Runner],
    waiting: Iterator[Runner],
    scoring: Scoring,
    decided: list[Runner],
    most_decided: int,
) -> Iterator[Runner]:
    """Yield the images in the window, and then let new ones in.

    Those that are decided from the start go to ``decided``.
    """
    yield from list(window.values())
    while len(decided) < most_decided and (runner := next(waiting, None)) is not None:
        if scoring.decided(runner.active):
            decided.append(runner)
        else:
            window[runner.image] = runner
            yield runner


def _evaluate(
    source: ErrorSource, planner: Planner, plan: list[tuple[Runner, Request]]
) -> list[Tensor]:
    """Get the errors of a step; those that it asks for ahead must not make it fail."""
    requests = [request for _, request in plan]
    try:
        return source.evaluate(requests) if requests else []
    except NonFiniteOutputError:
        if not any(request.n_ahead for request in requests):
            raise
        planner.looks_ahead = False
        return source.evaluate([request.without_ahead() for request in requests])
