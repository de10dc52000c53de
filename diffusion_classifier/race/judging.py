"""After a round: the pruner decides, image by image, which prompts stay in the race."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..pruners.base import Pruner
from ..pruners.running import RunningRounds
from ..scoring.class_losses import Scoring
from .runner import Runner
from .tape import DrawTape


class Judge:
    """Asks the pruner about images that reached a look.

    Parameters
    ----------
    tape : DrawTape
    pruner : Pruner
    scoring : Scoring
    """

    def __init__(self, tape: DrawTape, pruner: Pruner, scoring: Scoring) -> None:
        self._tape, self._pruner, self._scoring = tape, pruner, scoring
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
        """Let the pruner decide, in groups with the same number of draws."""
        groups: dict[tuple[int, int], list[Runner]] = {}
        for runner in looking:
            groups.setdefault((runner.n_draws, runner.n_judged), []).append(runner)
        over = []
        for (n_draws, _), group in groups.items():
            over += self._judge(group, n_draws)
        return over

    def _judge(self, group: list[Runner], n_draws: int) -> list[Runner]:
        scoring = self._scoring
        active = scoring.contenders(torch.stack([runner.active for runner in group]))
        if self._is_incremental:
            kept = self._judge_sums(group, active)
        else:
            kept = self._pruner.select(
                self._contributions(group, 0, n_draws),
                active,
                self._tape.round_of[:n_draws],
                None if scoring.races_classes else scoring.class_of,
            )
        look = self._pruner.next_look(n_draws)
        active = scoring.prompts(kept)
        n_active = active.sum(1).tolist()
        for runner, prompts, n in zip(group, active, n_active, strict=True):
            runner.keep(prompts, n, look)
        decided = scoring.decided(active).tolist()
        return [
            runner
            for runner, is_decided in zip(group, decided, strict=True)
            if is_decided or runner.is_at_end(self._tape)
        ]

    def _judge_sums(self, group: list[Runner], active: Tensor) -> Tensor:
        """Add the rounds since the last look to the sums of past rounds, and judge these."""
        first, last = group[0].n_judged, group[0].n_rounds
        sizes = self._tape.sizes(first, last)
        if not first:
            for runner in group:
                runner.sums = RunningRounds.none(active.shape[1])
        n_draws = group[0].n_draws
        contributions = self._contributions(group, n_draws - sum(sizes), n_draws)
        sums = RunningRounds.join([runner.sums for runner in group]).after(contributions, sizes)
        for runner, own in zip(group, sums.split(), strict=True):
            runner.sums, runner.n_judged = own, last
        return self._pruner.judge(sums, active)

    def _contributions(self, group: list[Runner], first: int, last: int) -> Tensor:
        """Return the contributions of draws ``first`` to ``last``, [B, P or K, last - first]."""
        return self._scoring.contributions(
            torch.stack([runner.errors()[:, first:] for runner in group]),
            self._tape.timesteps[first:last],
            self._tape.density[first:last],
            torch.stack([runner.log_prior for runner in group]),
        )
