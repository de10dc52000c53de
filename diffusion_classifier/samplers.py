r"""Which draws (t, eps) to take, and in which rounds.

A *draw* j is a timestep ``t_j`` and a noise ``eps_j ~ N(0, I)``; it serves every image and
every class, so that errors differ between classes by what the classes say, not by their luck.
A *round* is a small set of draws taken between two pruning decisions. Rounds are independent
of each other, and each is spread over [0, T), so that every prefix of rounds is too.

The noise of draw j comes from a generator keyed by ``(seed, j)``: results do not depend on
image order, batch size, device or on how many draws were taken before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from .display import DocumentedMixin
from .profile import Learner
from .schedule import NoiseSchedule
from .validation import check_positive_integer

_FIXED = -1  # noise key of draws whose noise the user gave


@dataclass(frozen=True, eq=False)
class Draws:
    """A round: timesteps, their proposal density and where their noise comes from.

    Attributes
    ----------
    timesteps : Tensor of shape (J,), dtype int64
    density : Tensor of shape (J,), dtype float64
        Proposal probability of each timestep relative to a uniform one; errors are divided
        by it.
    noise_keys : tuple of int of length J
        Key of each draw's noise; antithetic partners share one.
    signs : tuple of int of length J
        +1, or -1 for the second of an antithetic pair.
    seed : int
    antithetic : bool
        Whether draws (0, 1), (2, 3), ... are pairs that count as one observation each.
    fixed_noise : Tensor of shape (J, ...) or None
        The user's own noise, in place of keyed noise.
    """

    timesteps: Tensor
    density: Tensor
    noise_keys: tuple[int, ...]
    signs: tuple[int, ...]
    seed: int
    antithetic: bool = False
    fixed_noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def head(self, n: int) -> Draws:
        """The first ``n`` draws."""
        return Draws(
            self.timesteps[:n],
            self.density[:n],
            self.noise_keys[:n],
            self.signs[:n],
            self.seed,
            self.antithetic,
            None if self.fixed_noise is None else self.fixed_noise[:n],
        )

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Noise of shape (J, *shape), float32 on the CPU.

        Raises
        ------
        ValueError
            If the user's own noise does not have the latent's shape.
        """
        if self.fixed_noise is not None:
            if tuple(self.fixed_noise.shape[1:]) != tuple(shape):
                raise ValueError(
                    f"FixedDraws noise has shape {tuple(self.fixed_noise.shape[1:])} per draw, "
                    f"but this backend's latents have {tuple(shape)}; pass noise of shape "
                    f"[n_draws, {', '.join(map(str, shape))}]."
                )
            return self.fixed_noise
        return torch.stack(
            [
                sign * keyed_noise(self.seed, key, shape)
                for key, sign in zip(self.noise_keys, self.signs, strict=True)
            ]
        )


def keyed_noise(seed: int, key: int, shape: Sequence[int]) -> Tensor:
    """The standard normal noise, float32, that belongs to ``(seed, key)``."""
    state = np.random.SeedSequence((seed, key)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    return torch.randn(tuple(shape), generator=generator)


class Sampler(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Chooses timesteps and noise, round by round.

    Attributes
    ----------
    endless : bool
        Whether rounds never end. A sampler with a grid of its own is not: a budget that cut its
        grid would silently leave out some of the range of timesteps, and is refused.
    """

    endless: bool = True

    @abstractmethod
    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        """Rounds of draws; endless unless the sampler has a grid of its own.

        Parameters
        ----------
        schedule : NoiseSchedule
            Timesteps are integers in [0, schedule.n_timesteps).
        seed : int
            Same seed, same draws.
        """


class StratifiedSampler(Sampler):
    """Small stratified rounds, each with a random shift of its own.

    A round of R timesteps is ``floor(T (k + u) / R)``, k = 0 ... R - 1, with one uniform u per
    round: systematic sampling. Each timestep is uniform on [0, T), each round covers the range,
    and rounds are independent, so that round means are valid observations for a statistical
    test (within one ordered low-discrepancy sequence they would not be).

    Parameters
    ----------
    round_size : int, default=2
        Draws per round.
    antithetic : bool, default=False
        Take every noise with both signs at the same timestep: half as many timesteps per round.
        A pair is one observation.
    stratified : bool, default=True
        If False, timesteps are independent uniform draws.

    Raises
    ------
    ValueError
        In ``rounds``: ``round_size`` is not a positive integer, or is odd while
        ``antithetic=True``.

    References
    ----------
    A. C. Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", arXiv 2303.16203,
    show why noise is shared by classes; A. Owen, "Monte Carlo theory, methods and examples",
    ch. 8 and 10, has antithetic and systematic sampling.

    Examples
    --------
    >>> from diffusion_classifier.samplers import StratifiedSampler
    >>> from diffusion_classifier.schedule import NoiseSchedule
    >>> rounds = StratifiedSampler(round_size=4).rounds(NoiseSchedule.flow(1000), seed=0)
    >>> [(next(rounds).timesteps // 250).tolist() for _ in range(2)]  # a quarter each
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """

    def __init__(
        self, round_size: int = 2, *, antithetic: bool = False, stratified: bool = True
    ) -> None:
        self.round_size = round_size
        self.antithetic = antithetic
        self.stratified = stratified

    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        size = check_positive_integer("round_size", self.round_size)
        if self.antithetic and size % 2:
            raise ValueError(f"round_size={size} must be even: antithetic draws come in pairs.")
        n_times = size // 2 if self.antithetic else size
        number = 0
        while True:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
            if self.stratified:
                u = (np.arange(n_times) + rng.random()) / n_times
            else:
                u = rng.random(n_times)
            timesteps, density = self._place(u, schedule)
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

    def _place(self, u: NDArray, schedule: NoiseSchedule) -> tuple[NDArray, NDArray]:
        """Timesteps of uniform numbers u, and their density relative to uniform."""
        timesteps = np.minimum(np.floor(u * schedule.n_timesteps), schedule.n_timesteps - 1)
        return timesteps, np.ones(len(u))


class EvenSampler(Sampler):
    """The evenly spaced timesteps of the published script, stage by stage.

    Stage s asks for an even grid of ``stages[s]`` timesteps out of the last stage's grid; its
    round holds those that no earlier stage has taken. As in the published script, grids do not
    nest: stages of 20, 50, 100 and 500 take 20, 70, 150 and 500 draws; and a last stage that does
    not divide the number of timesteps leaves out the highest. Use it for parity with
    published results, together with :class:`~diffusion_classifier.pruners.StagedPruner`.

    Parameters
    ----------
    stages : sequence of int, default=(20, 200)
        Timesteps asked for by each stage, increasing.

    Raises
    ------
    ValueError
        In ``rounds``: stages are not increasing positive integers, or the last exceeds the
        schedule's number of timesteps.

    References
    ----------
    A. C. Li et al., arXiv 2303.16203, and its published script ``eval_prob_adaptive.py``.

    Examples
    --------
    >>> from diffusion_classifier.samplers import EvenSampler
    >>> from diffusion_classifier.schedule import NoiseSchedule
    >>> sampler = EvenSampler(stages=(20, 50, 100, 500))
    >>> [len(draws) for draws in sampler.rounds(NoiseSchedule.flow(1000), seed=0)]
    [20, 50, 80, 350]
    """

    endless = False

    def __init__(self, stages: Sequence[int] = (20, 200)) -> None:
        self.stages = stages

    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        stages = [check_positive_integer("stages", n) for n in self.stages]
        if not stages or stages != sorted(set(stages)):
            raise ValueError(f"stages={self.stages!r} must be increasing positive integers.")
        if stages[-1] > schedule.n_timesteps:
            raise ValueError(
                f"stages={self.stages!r} asks for more than the {schedule.n_timesteps} timesteps "
                "of this model."
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
    """Draws of the user's own.

    Parameters
    ----------
    timesteps : sequence of int of length J
        In the order in which they are taken.
    noise : array-like of shape (J, ...), optional
        One noise per draw, of the latent's shape. By default, noise keyed by the seed.
    round_size : int, optional
        Draws between two pruning decisions. By default all are one round.

    Raises
    ------
    ValueError
        In ``rounds``: a timestep is outside the schedule, or ``noise`` has another length.

    Examples
    --------
    >>> from diffusion_classifier.samplers import FixedDraws
    >>> from diffusion_classifier.schedule import NoiseSchedule
    >>> sampler = FixedDraws([100, 500, 900], round_size=2)
    >>> [draws.timesteps.tolist() for draws in sampler.rounds(NoiseSchedule.flow(), seed=0)]
    [[100, 500], [900]]
    """

    endless = False

    def __init__(
        self, timesteps: Sequence[int], noise: Any = None, *, round_size: int | None = None
    ) -> None:
        self.timesteps = timesteps
        self.noise = noise
        self.round_size = round_size

    def rounds(self, schedule: NoiseSchedule, seed: int) -> Iterator[Draws]:
        timesteps = [int(t) for t in self.timesteps]
        if not timesteps:
            raise ValueError("timesteps is empty; give at least one.")
        for j, t in enumerate(timesteps):
            if not 0 <= t < schedule.n_timesteps or t != self.timesteps[j]:
                raise ValueError(
                    f"timesteps[{j}] = {self.timesteps[j]} must be an integer from 0 to "
                    f"{schedule.n_timesteps - 1}."
                )
        noise = None if self.noise is None else torch.as_tensor(self.noise, dtype=torch.float32)
        if noise is not None and len(noise) != len(timesteps):
            raise ValueError(f"noise holds {len(noise)} draws, timesteps {len(timesteps)}.")
        if self.round_size is None:
            size = len(timesteps)
        else:
            size = check_positive_integer("round_size", self.round_size)
        for start in range(0, len(timesteps), size):
            part = slice(start, start + size)
            yield _plain_round(
                timesteps[part], start, seed, fixed_noise=None if noise is None else noise[part]
            )


def _plain_round(
    timesteps: list[int], first_key: int, seed: int, fixed_noise: Tensor | None = None
) -> Draws:
    """A round at given timesteps, each draw with a noise of its own."""
    n = len(timesteps)
    return Draws(
        torch.tensor(timesteps, dtype=torch.int64),
        torch.ones(n, dtype=torch.float64),
        tuple(range(first_key, first_key + n)) if fixed_noise is None else (_FIXED,) * n,
        (1,) * n,
        seed,
        fixed_noise=fixed_noise,
    )
