"""Stratified sampling of timesteps, in small rounds with random shifts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputValueError
from ..noise.draws import Draws
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import MANY, Booleans, Integers, Table, check_parameters
from .base import Sampler


class StratifiedSampler(Sampler):
    """Small stratified rounds of timesteps, each with its own random shift.

    A round of R timesteps is ``floor(T (k + u) / R)``, k = 0 ... R - 1, with one uniform u per
    round (systematic sampling). The timesteps of a round are spread over [0, T), and the mean over
    a round is unbiased. Rounds are independent, so their means are valid observations for a
    statistical test; parts of a single low-discrepancy sequence would not be.

    Parameters
    ----------
    round_size : int, default=2
        Draws per round, at most 100,000.
    antithetic : bool, default=False
        Take draws in pairs with noises eps and -eps at the same timestep. A pair counts as one
        observation, so a round has half as many timesteps.
    stratified : bool, default=True
        If False, the timesteps of a round are independent and uniform.

    Raises
    ------
    InputValueError
        In ``rounds``, if a parameter has a value that it does not allow, or ``round_size`` is odd
        although ``antithetic=True``.

    References
    ----------
    A. C. Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV 2023, arXiv
    2303.16203 (why classes share noise). A. Owen, "Monte Carlo theory, methods and examples",
    2013, chapters 8 and 10 (antithetic and systematic sampling).

    Examples
    --------
    >>> from diffusion_classifier.samplers import StratifiedSampler
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> rounds = StratifiedSampler(round_size=4).rounds(NoiseSchedule.flow(1000), seed=0)
    >>> [(next(rounds).timesteps // 250).tolist() for _ in range(2)]  # one in each quarter
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """

    _constraints: ClassVar[Table] = {
        "round_size": Integers(1, MANY),
        "antithetic": Booleans(),
        "stratified": Booleans(),
    }

    def __init__(
        self, round_size: int = 2, *, antithetic: bool = False, stratified: bool = True
    ) -> None:
        self.round_size = round_size
        self.antithetic = antithetic
        self.stratified = stratified

    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        check_parameters(self)
        size = int(self.round_size)
        if self.antithetic and size % 2:
            raise InputValueError(
                f"round_size={size} must be even, because antithetic draws come in pairs."
            )
        n_times = size // 2 if self.antithetic else size
        place = self._placement(schedule)
        number = 0
        while True:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
            if self.stratified:
                u = (np.arange(n_times) + rng.random()) / n_times
            else:
                u = rng.random(n_times)
            timesteps, density = place(u)
            keys = number * n_times + np.arange(n_times)
            signs = np.ones(n_times, int)
            if self.antithetic:
                timesteps, density, keys = (a.repeat(2) for a in (timesteps, density, keys))
                signs = np.tile([1, -1], n_times)
            yield Draws(
                torch.as_tensor(timesteps, dtype=torch.int64),
                torch.as_tensor(density, dtype=torch.float64),
                tuple(keys.tolist()),
                tuple(signs.tolist()),
                seed,
                self.antithetic,
            )
            number += 1

    def _placement(self, schedule: NoiseSchedule) -> Callable[[NDArray], tuple[NDArray, NDArray]]:
        """Return what maps uniform numbers to timesteps and their densities to uniform."""
        n_timesteps = schedule.n_timesteps

        def place(u: NDArray) -> tuple[NDArray, NDArray]:
            return np.minimum(np.floor(u * n_timesteps), n_timesteps - 1), np.ones(len(u))

        return place
