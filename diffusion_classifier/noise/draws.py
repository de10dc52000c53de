"""Draws (t, eps): timesteps, and noise keyed so that every image and class gets the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputValueError

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
                raise InputValueError(
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
