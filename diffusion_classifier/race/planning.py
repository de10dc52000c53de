"""Which errors to ask for next, so that the network always has full batches.

A step asks for several batches. Images in the window come first and then new ones, each with all
rounds up to the pruner's next look. When few images are left, a step has few rows, and a call of
the network with few rows takes nearly as long as one with more. The images then ask for rounds
*ahead*: those after the next look, which are judged in order as if they had been asked for one
after the other. The answers are the same. What a look makes superfluous is lost: an image asks
ahead for one round, or a quarter of those that it took so far, so about an eighth is lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..noise.draws import Draws
from ..pruners.base import Pruner
from .runner import Runner
from .source import ErrorSource, Request
from .tape import DrawTape

_ROUNDS_AHEAD = 4  # rounds that an image took, for each that it may ask for ahead


class Planner:
    """Plans the requests of each step.

    Parameters
    ----------
    source : ErrorSource
    tape : DrawTape
    pruner : Pruner
    """

    def __init__(self, source: ErrorSource, tape: DrawTape, pruner: Pruner) -> None:
        self._source, self._tape, self._pruner = source, tape, pruner
        self.looks_ahead = True

    def step(
        self, window: Iterable[Runner], only_full: bool = False
    ) -> list[tuple[Runner, Request]]:
        """Plan requests of about ``rows_wanted`` rows for the first images of a window.

        With ``only_full``, plan nothing if the window has fewer rows.
        """
        wanted = self._source.rows_wanted
        plan: list[tuple[Runner, Request]] = []
        n_rows = 0
        for runner in window:
            request = self._up_to_look(runner, wanted - n_rows)
            total = n_rows + request.n_rows
            if plan and total > wanted and self._share_used(total) <= self._share_used(n_rows):
                return plan
            plan.append((runner, request))
            n_rows = total
            if n_rows >= wanted:
                return plan
        if only_full:
            return []
        return self._with_rounds_ahead(plan, n_rows) if self.looks_ahead else plan

    def _share_used(self, n_rows: int) -> float:
        """Return the share of whole batches that so many rows fill."""
        n_batches = -(-n_rows // self._source.batch_rows)
        return n_rows / (n_batches * self._source.batch_rows)

    def _up_to_look(self, runner: Runner, room: int) -> Request:
        """Plan rounds up to the next look, as far as there is room, at least one."""
        rounds: list[Draws] = []
        n_draws = 0
        while (draws := self._tape[runner.next_round + len(rounds)]) is not None:
            if rounds and (n_draws + len(draws)) * runner.n_active > room:
                break
            rounds.append(draws)
            n_draws += len(draws)
            if runner.next_draw + n_draws >= runner.look:
                break
        return Request(runner.image, runner.prompts, rounds, runner.next_draw)

    def _with_rounds_ahead(
        self, plan: list[tuple[Runner, Request]], n_rows: int
    ) -> list[tuple[Runner, Request]]:
        """Add rounds after the next look, in turn, until the rows are no longer few."""
        n_ahead = [0] * len(plan)
        n_rounds = [len(request.rounds) + self._most_ahead(runner) for runner, request in plan]
        is_growing = True
        while is_growing:
            is_growing = False
            for i, (runner, request) in enumerate(plan):
                if len(request.rounds) == n_rounds[i]:
                    continue
                draws = self._round_ahead(runner, request)
                more = 0 if draws is None else len(draws) * request.n_prompts
                if draws is not None and n_rows + more <= self._source.few_rows:
                    request.rounds.append(draws)
                    n_ahead[i] += len(draws)
                    n_rows += more
                    is_growing = True
        return [
            (runner, request._replace(n_ahead=n))
            for (runner, request), n in zip(plan, n_ahead, strict=True)
        ]

    def _most_ahead(self, runner: Runner) -> int:
        return max(1, runner.next_round // _ROUNDS_AHEAD)

    def _round_ahead(self, runner: Runner, request: Request) -> Draws | None:
        """Return the round after those of a request, unless it is sure to be superfluous."""
        n_active = request.n_prompts
        if self._pruner.max_classes(request.start + request.n_draws, n_active) < n_active:
            return None  # the look before it is sure to drop some
        return self._tape[runner.next_round + len(request.rounds)]
