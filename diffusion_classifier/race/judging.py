"""After a round: the pruner decides, image by image, which prompts stay in the race."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..pruners.base import Pruner
from ..pruners.running import RunningRounds
from ..scoring.class_losses import Scoring
from .runner import Runner
from .source import Result
from .tape import DrawTape


class Judge:
    """Asks the pruner about images that reached a look.

    Parameters
    ----------
    tape : DrawTape
    pruner : Pruner
    scoring : Scoring
    on_look : callable, optional
        Called with the image's Result so far, after each look.
    """

    def __init__(
        self,
        tape: DrawTape,
        pruner: Pruner,
        scoring: Scoring,
        on_look: Callable[[Result], None] | None = None,
    ) -> None:
        self._tape, self._pruner, self._scoring = tape, pruner, scoring
        self._on_look = on_look
        # With a temperature that changes with the draws, so do all earlier contributions.
        self._is_incremental = pruner.incremental and scoring.log_temperature[1] == 0

    def finished(self, runners: Sequence[Runner]) -> list[Runner]:
        """Judge images round by round, as far as their errors go; return those that are decided.

        An image whose race is not over has nothing left that could be judged.
        """
        done: list[Runner] = []
        while looking := [runner for runner in runners if runner.reaches_look(self._tape)]:
            over = self._look(looking)
            done += over
            left = set(looking) - set(over)
            runners = [runner for runner in looking if runner in left]
        return done

    def _look(self, looking: Sequence[Runner]) -> list[Runner]:
        """Let the pruner decide, for as many images at once as it can; return those decided."""
        groups: dict[tuple[int, ...], list[Runner]] = {}
        for runner in looking:
            groups.setdefault(self._kind(runner), []).append(runner)
        decided = []
        for kind, group in groups.items():
            active = self._scoring.contenders(torch.stack([runner.active for runner in group]))
            if self._is_incremental:
                kept = self._judge_sums(group, active, kind)
            else:
                kept = self._judge_draws(group, active)
            decided += self._keep(group, self._scoring.prompts(kept))
        if self._on_look is not None:
            for runner in looking:
                self._on_look(runner.result())
        return decided

    def _kind(self, runner: Runner) -> tuple[int, ...]:
        """Return what images that are judged in one call have in common.

        For sums, it is the sizes of the rounds to add to them; else all draws.
        """
        if self._is_incremental:
            return self._tape.sizes(runner.n_judged, runner.n_rounds)
        return (runner.n_draws,)

    def _judge_draws(self, group: list[Runner], active: Tensor) -> Tensor:
        """Judge images by their contributions on all draws."""
        scoring, draws = self._scoring, slice(group[0].n_draws)
        contributions = scoring.contributions(
            torch.stack([runner.errors() for runner in group]),
            self._tape.timesteps[draws],
            self._tape.density[draws],
            torch.stack([runner.log_prior for runner in group]),
        )
        class_of = None if scoring.races_classes else scoring.class_of
        return self._pruner.select(contributions, active, self._tape.round_of[draws], class_of)

    def _judge_sums(self, group: list[Runner], active: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Add the rounds since the last look to the sums of past rounds, and judge these."""
        n_new = sum(sizes)
        stops = [runner.n_draws for runner in group]
        new: slice | Tensor = slice(stops[0] - n_new, stops[0])
        if min(stops) < max(stops):
            new = torch.tensor([range(stop - n_new, stop) for stop in stops])[:, None]
        contributions = self._scoring.contributions(
            torch.stack([runner.errors(n_new) for runner in group]),
            self._tape.timesteps[new],
            self._tape.density[new],
            torch.stack([runner.log_prior for runner in group]),
        )
        none = RunningRounds.none(active.shape[1])
        sums = RunningRounds.join([runner.sums or none for runner in group])
        sums = sums.after(contributions.detach().numpy(), sizes)
        for runner, own in zip(group, sums.split(), strict=True):
            runner.sums, runner.n_judged = own, runner.n_rounds
        return self._pruner.judge(sums, active)

    def _keep(self, group: list[Runner], active: Tensor) -> list[Runner]:
        """Note which prompts [B, P] stay active; return the images that are decided."""
        n_active = active.sum(1).tolist()
        # An image that loses no prompt is no more decided than before.
        drops = any(n < runner.n_active for runner, n in zip(group, n_active, strict=True))
        decided = self._scoring.decided(active).tolist() if drops else [False] * len(group)
        for runner, own, n in zip(group, active, n_active, strict=True):
            look = max(self._pruner.next_look(runner.n_draws), runner.n_draws + 1)
            runner.keep(own, n, look)
        return [
            runner
            for runner, is_decided in zip(group, decided, strict=True)
            if is_decided or runner.is_at_end(self._tape)
        ]
