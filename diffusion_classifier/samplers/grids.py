"""Samplers with a finite grid: the published timesteps, or draws supplied by the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from ..errors import InputValueError
from ..noise.draws import Draws, _plain_round
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import (
    MANY,
    Arrays,
    Integers,
    Sequences,
    Table,
    as_numbers,
    check_parameters,
)
from ..utils.display import short_repr
from .base import Sampler


class EvenSampler(Sampler):
    """Evenly spaced timesteps in stages, as in the published script of Li et al.

    Each stage is one round. Stage s takes an even grid of ``stages[s]`` timesteps from the grid of
    the last stage, less the timesteps of earlier stages. Use it to reproduce published results,
    together with :class:`~diffusion_classifier.pruners.StagedPruner`.

    Two properties of the script are kept. Grids do not nest: after stages of 20, 50, 100 and 500
    timesteps, 20, 70, 150 and 500 draws have been taken. If the last stage does not divide the
    number of timesteps of the schedule, the highest timesteps are left out.

    Parameters
    ----------
    stages : sequence of int, default=(20, 200)
        Size of each stage's grid, increasing.

    Raises
    ------
    InputValueError
        In ``rounds``, if ``stages`` are not increasing positive integers or the last one exceeds
        the number of timesteps of the schedule.

    References
    ----------
    A. C. Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, arXiv
    2303.16203, and its published script ``eval_prob_adaptive.py``.

    Examples
    --------
    >>> from diffusion_classifier.samplers import EvenSampler
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> sampler = EvenSampler(stages=(20, 50, 100, 500))
    >>> [len(draws) for draws in sampler.rounds(NoiseSchedule.flow(1000), seed=0)]
    [20, 50, 80, 350]
    """

    endless = False

    _constraints: ClassVar[Table] = {"stages": Sequences(Integers(1, MANY))}

    def __init__(self, stages: Sequence[int] = (20, 200)) -> None:
        self.stages = stages

    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        check_parameters(self)
        stages = [int(n) for n in self.stages]
        if not stages or stages != sorted(set(stages)):
            raise InputValueError(
                f"stages={short_repr(self.stages)} must be increasing positive integers."
            )
        if stages[-1] > schedule.n_timesteps:
            raise InputValueError(
                f"the last of stages={short_repr(self.stages)} must be at most "
                f"{schedule.n_timesteps}, the number of timesteps of this model."
            )
        step = schedule.n_timesteps // stages[-1]
        grid = np.arange(step // 2, schedule.n_timesteps, step)[: stages[-1]]
        taken: set[int] = set()
        for n in stages:
            stride = len(grid) // n
            fresh = [t for t in grid[stride // 2 :: stride][:n].tolist() if t not in taken]
            if not fresh:
                continue
            yield _plain_round(fresh, len(taken), seed)
            taken.update(fresh)


class FixedDraws(Sampler):
    """Draws supplied by the user.

    Parameters
    ----------
    timesteps : sequence of int of length J
        Timesteps, in the order in which they are taken.
    noise : array-like of shape (J, ...), optional
        Noise of each draw, of the latent's shape. By default it is generated from the seed.
    round_size : int, optional
        Draws per round. By default all draws form one round.

    Raises
    ------
    InputValueError
        In ``rounds``, if ``timesteps`` is empty, a timestep is outside the schedule, ``noise``
        has another length, or ``round_size`` is not a positive integer.

    Examples
    --------
    >>> from diffusion_classifier.samplers import FixedDraws
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> sampler = FixedDraws([100, 500, 900], round_size=2)
    >>> [draws.timesteps.tolist() for draws in sampler.rounds(NoiseSchedule.flow(), seed=0)]
    [[100, 500], [900]]
    """

    endless = False

    _constraints: ClassVar[Table] = {
        "timesteps": Sequences(Integers(0, MANY)),
        "noise": Arrays() | None,
        "round_size": Integers(1, MANY) | None,
    }

    def __init__(
        self, timesteps: Sequence[int], noise: Any = None, *, round_size: int | None = None
    ) -> None:
        self.timesteps = timesteps
        self.noise = noise
        self.round_size = round_size

    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        check_parameters(self)
        timesteps = [int(t) for t in self.timesteps]
        if not timesteps:
            raise InputValueError(
                f"timesteps={short_repr(self.timesteps)} is empty; give at least one."
            )
        for j, t in enumerate(timesteps):
            if t >= schedule.n_timesteps:
                raise InputValueError(
                    f"timesteps[{j}] = {t} must be an integer from 0 to {schedule.n_timesteps - 1}."
                )
        noise = None
        if self.noise is not None:
            noise = torch.from_numpy(as_numbers("noise", self.noise)).float()
        if noise is not None and noise.shape[:1] != (len(timesteps),):
            raise InputValueError(
                f"noise={short_repr(self.noise)} has shape {tuple(noise.shape)}, but timesteps has "
                f"{len(timesteps)} entries; give one noise per timestep."
            )
        size = len(timesteps) if self.round_size is None else int(self.round_size)
        for start in range(0, len(timesteps), size):
            part = slice(start, start + size)
            yield _plain_round(
                timesteps[part], start, seed, fixed_noise=None if noise is None else noise[part]
            )
