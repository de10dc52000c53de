"""The state of one image's race: its errors so far, and how far they have been judged.

Errors may be known for more draws than the pruner has judged. Judged draws end with a whole round;
those after them are *ahead*. A prompt that is dropped keeps no errors that are ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..pruners.running import RunningRounds
from .source import Request, Result
from .tape import DrawTape


class Runner:
    """Race state of one image.

    Attributes
    ----------
    image : int
    active : Tensor of shape (P,), dtype bool
        Prompts still in the race.
    prompts : Tensor of shape (A,), dtype int64
        Indices of the active prompts.
    n_active : int
    log_prior : Tensor of shape (K,)
    n_draws, n_rounds : int
        Draws and rounds that were judged, or need no judgement because the pruner looks later.
    look : int
        Number of draws at which the pruner decides next.
    sums : RunningRounds or None
        Sums over the first ``n_judged`` rounds, for pruners that need no more.
    """

    def __init__(self, image: int, active: Tensor, log_prior: Tensor, look: int) -> None:
        self.image = image
        self.log_prior = log_prior
        self.look = look
        self.n_draws = self.n_rounds = 0
        self.n_judged = 0
        self.sums: RunningRounds | None = None
        self._n_ahead: list[int] = []  # draws of each round that is ahead
        self._n_known = 0  # draws, judged or ahead
        self._errors = torch.empty(len(active), 0)  # with room for more draws
        self._drop_to(active)

    def _drop_to(self, active: Tensor) -> None:
        self.active = active
        self.prompts = active.nonzero()[:, 0]
        self.n_active = self.prompts.shape[0]

    @property
    def next_round(self) -> int:
        """Number of the first round that is not known."""
        return self.n_rounds + len(self._n_ahead)

    @property
    def next_draw(self) -> int:
        """Number of the first draw that is not known."""
        return self._n_known

    def record(self, request: Request, errors: Tensor) -> None:
        """Add the errors [A, J] that answer a request; a last round that is cut short is lost."""
        n_draws = 0
        for draws in request.rounds:
            if n_draws + len(draws) > errors.shape[1]:
                break
            self._n_ahead.append(len(draws))
            n_draws += len(draws)
        first, last = self._n_known, self._n_known + n_draws
        self._make_room(last, errors.dtype)
        new, errors = self._errors[:, first:last], errors[:, :n_draws]
        if self.n_active == new.shape[0]:
            new.copy_(errors)
        else:
            new.index_copy_(0, self.prompts, errors.to(new.dtype))
        self._n_known = last

    def _make_room(self, n_draws: int, dtype: torch.dtype) -> None:
        """Have room for ``n_draws`` draws; it doubles, so that errors are seldom copied."""
        old = self._errors
        dtype = torch.promote_types(old.dtype, dtype)  # errors of exact backends are float64
        if n_draws > old.shape[1]:
            size = max(n_draws, 2 * old.shape[1])
            self._errors = torch.full((len(old), size), torch.nan, dtype=dtype)
            self._errors[:, : self._n_known] = old[:, : self._n_known]
        elif dtype != old.dtype:
            self._errors = old.to(dtype)

    def reaches_look(self, tape: DrawTape) -> bool:
        """Go on through the known rounds, up to the next look; return whether it is reached."""
        while self._n_ahead and not self._at_look(tape):
            self.n_draws += self._n_ahead.pop(0)
            self.n_rounds += 1
        return self._at_look(tape)

    def _at_look(self, tape: DrawTape) -> bool:
        return self.n_draws >= self.look or self.is_at_end(tape)

    def is_at_end(self, tape: DrawTape) -> bool:
        """Whether the sampler or the budget ends here."""
        return not self._n_ahead and tape[self.n_rounds] is None

    def keep(self, active: Tensor, n_active: int, look: int) -> None:
        """Note what the pruner decided, and when it decides again."""
        self.look = look
        if n_active == self.n_active:
            return
        if self._n_ahead:
            self._errors[self.active & ~active, self.n_draws : self._n_known] = torch.nan
        self._drop_to(active)

    def errors(self, n_last: int | None = None) -> Tensor:
        """Return the errors up to the look, or of its last draws: a view, NaN if not evaluated."""
        start = 0 if n_last is None else self.n_draws - n_last
        return self._errors[:, start : self.n_draws]

    def result(self) -> Result:
        return Result(self.image, self.errors().clone(), self.active)
