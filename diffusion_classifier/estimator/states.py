"""How a race stands, or ended, for one image: its log posterior, and its state after a round."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..callbacks import RaceRound
from ..race import DrawTape, Result
from ..scoring import Scoring
from ..scoring.candidates import Candidates
from ..scoring.interval import probability_interval


def row_of(result: Result, tape: DrawTape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return errors [P, J], timesteps [J], density [J] and active prompts [P] of an image."""
    return result.errors, tape.timesteps, tape.density, result.active


def posterior_of(
    scoring: Scoring, result: Result, tape: DrawTape, among: Candidates | None
) -> Tensor:
    """Return the log posterior [K] of one image, among its candidates or all classes."""
    if among is None:
        return scoring.log_posterior_of(*row_of(result, tape))
    return among.of(result.image).log_posterior(scoring, *row_of(result, tape))


def state_of(
    scoring: Scoring, result: Result, tape: DrawTape, among: Candidates | None
) -> RaceRound:
    """Return what callbacks are told of one image after a round."""
    row = *row_of(result, tape), tape.round_of
    if among is None:
        low, high = probability_interval(scoring, *row)
    else:
        low, high = among.of(result.image).probability_interval(scoring, *row)
    active = torch.zeros(scoring.n_classes, dtype=torch.bool)
    active[scoring.class_of[result.active]] = True
    return RaceRound(
        image=result.image,
        n_draws=result.errors.shape[1],
        n_evaluations=result.n_evaluations,
        active=active.numpy(),
        probabilities=np.exp(posterior_of(scoring, result, tape, among).numpy()),
        low=low.numpy(),
        high=high.numpy(),
    )
