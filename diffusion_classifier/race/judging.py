"""After a round: the pruner decides, image by image, which prompts stay in the race."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pruners.base import Pruner
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
        groups: dict[int, list[Runner]] = {}
        for runner in looking:
            groups.setdefault(runner.n_draws, []).append(runner)
        over = []
        for n_draws, group in groups.items():
            over += self._judge(group, n_draws)
        return over

    def _judge(self, group: list[Runner], n_draws: int) -> list[Runner]:
        scoring = self._scoring
        contributions = scoring.contributions(
            torch.stack([runner.errors() for runner in group]),
            self._tape.timesteps[:n_draws],
            self._tape.density[:n_draws],
            torch.stack([runner.log_prior for runner in group]),
        )
        kept = self._pruner.select(
            contributions,
            scoring.contenders(torch.stack([runner.active for runner in group])),
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
