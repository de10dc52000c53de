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
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..noise.draws import Draws
from ..pruners.base import Pruner
from ..scoring.class_losses import Scoring
from .source import ErrorSource, Request, Result, Start
from .tape import DrawTape


@dataclass
class _Runner:
    """Race state of one image in the window."""

    image: int
    active: Tensor
    log_prior: Tensor  # [K]
    chunks: list[Tensor] = field(default_factory=list)  # errors of past steps, each [P, J]
    n_rounds: int = 0
    n_draws: int = 0
    look: int = 0  # number of draws at which the pruner decides next

    def record(self, request: Request, errors: Tensor) -> None:
        """Append the errors [A, J] that answer a request."""
        chunk = torch.full((len(self.active), request.n_draws), torch.nan, dtype=errors.dtype)
        chunk[request.prompts] = errors
        self.chunks.append(chunk)
        self.n_rounds += len(request.rounds)
        self.n_draws += request.n_draws

    def errors(self) -> Tensor:
        """Return all errors so far, [P, J]."""
        if not self.chunks:
            return torch.empty(len(self.active), 0)
        if len(self.chunks) > 1:
            self.chunks = [torch.cat(self.chunks, 1)]
        return self.chunks[0]


def run_race(
    source: ErrorSource,
    tape: DrawTape,
    pruner: Pruner,
    scoring: Scoring,
    images: Iterable[int],
    start: Callable[[int], Start] | None = None,
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

    Yields
    ------
    Result
        One per image, in the order in which images are decided.
    """
    everyone = Start(torch.ones(source.n_prompts, dtype=torch.bool))
    starts = ((image, everyone if start is None else start(image)) for image in images)
    waiting = (
        _Runner(image, active, scoring.log_prior if log_prior is None else log_prior)
        for image, (active, log_prior) in starts
    )
    window: list[_Runner] = []
    while True:
        requests = _plan_step(source, tape, pruner, scoring, window, waiting)
        if not window:
            return
        runners = {runner.image: runner for runner in window}
        answers = source.evaluate(requests) if requests else []
        for request, errors in zip(requests, answers, strict=True):
            runners[request.image].record(request, errors)
        looking = [
            runner
            for runner in window
            if runner.n_draws >= runner.look or tape[runner.n_rounds] is None
        ]
        _prune([runner for runner in looking if runner.n_draws], tape, pruner, scoring)
        for runner in looking:
            if scoring.decided(runner.active) or tape[runner.n_rounds] is None:
                window.remove(runner)
                source.release(runner.image)
                yield Result(runner.image, runner.errors(), runner.active)


def _plan_step(
    source: ErrorSource,
    tape: DrawTape,
    pruner: Pruner,
    scoring: Scoring,
    window: list[_Runner],
    waiting: Iterator[_Runner],
) -> list[Request]:
    """Plan requests of about ``rows_wanted`` rows: images in the window first, then new ones.

    An image takes all rounds up to the pruner's next decision, as far as there is room. New ones
    that are decided from the start enter the window without a request, and leave at its next look.
    """
    requests: list[Request] = []
    room = source.rows_wanted
    for runner in window:
        if room <= 0:
            return requests
        requests.append(_plan_runner(runner, tape, room))
        room -= requests[-1].n_rows
    while room > 0 and (new := next(waiting, None)) is not None:
        window.append(new)
        if scoring.decided(new.active):
            room -= 1
            continue
        new.look = pruner.next_look(0)
        requests.append(_plan_runner(new, tape, room))
        room -= requests[-1].n_rows
    return requests


def _plan_runner(runner: _Runner, tape: DrawTape, room: int) -> Request:
    """Plan the next rounds of one image, at least one."""
    prompts = runner.active.nonzero()[:, 0]
    rounds: list[Draws] = []
    n_draws = runner.n_draws
    while (draws := tape[runner.n_rounds + len(rounds)]) is not None:
        rounds.append(draws)
        n_draws += len(draws)
        if n_draws >= runner.look or (n_draws - runner.n_draws) * len(prompts) >= room:
            break
    return Request(runner.image, prompts, rounds, runner.n_draws)


def _prune(looking: list[_Runner], tape: DrawTape, pruner: Pruner, scoring: Scoring) -> None:
    """Let the pruner decide for these images, in groups with the same number of draws."""
    groups: dict[int, list[_Runner]] = {}
    for runner in looking:
        groups.setdefault(runner.n_draws, []).append(runner)
    for n_draws, group in groups.items():
        contributions = scoring.contributions(
            torch.stack([runner.errors() for runner in group]),
            tape.timesteps[:n_draws],
            tape.density[:n_draws],
            torch.stack([runner.log_prior for runner in group]),
        )
        active = torch.stack([runner.active for runner in group])
        kept = pruner.select(
            contributions,
            scoring.contenders(active),
            tape.round_of[:n_draws],
            None if scoring.races_classes else scoring.class_of,
        )
        for runner, prompts in zip(group, scoring.prompts(kept), strict=True):
            runner.active = prompts
            runner.look = pruner.next_look(n_draws)
