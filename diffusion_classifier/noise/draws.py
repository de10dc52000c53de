"""Draws (t, eps): timesteps and their noise, the same for every image and class.

The noise of a draw is generated from a key, so it does not depend on the order of evaluation.
Two draws are *antithetic* if they share a timestep and their noises are eps and -eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputValueError

_FIXED = -1  # key of draws whose noise the user supplied


@dataclass(frozen=True, eq=False)
class Draws:
    """The draws of one round: timesteps, proposal densities and the keys of their noise.

    Attributes
    ----------
    timesteps : Tensor of shape (J,), dtype int64
    density : Tensor of shape (J,), dtype float64
        Proposal probability of each timestep, relative to the uniform distribution. Errors are
        divided by it.
    noise_keys : tuple of int of length J
        Key of each draw's noise. The two draws of an antithetic pair share one.
    signs : tuple of int of length J
        Sign of the noise: +1, or -1 for the second draw of an antithetic pair.
    seed : int
    antithetic : bool, default=False
        Whether draws (0, 1), (2, 3), ... are antithetic pairs. A pair counts as one observation.
    fixed_noise : Tensor of shape (J, ...), optional
        Noise supplied by the user, which replaces the keyed noise.
    """

    timesteps: Tensor
    density: Tensor
    noise_keys: tuple[int, ...]
    signs: tuple[int, ...]
    seed: int
    antithetic: bool = False
    fixed_noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noise_keys)  # a tuple's length costs a hundredth of a tensor's

    def head(self, n: int) -> Draws:
        """Return the first ``n`` draws."""
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
        """Return the noise of all draws, of shape ``(J, *shape)``, as float32 on the CPU.

        Raises
        ------
        InputValueError
            If the user supplied noise of another shape.
        """
        if self.fixed_noise is not None:
            if tuple(self.fixed_noise.shape[1:]) != tuple(shape):
                raise InputValueError(
                    f"FixedDraws noise has shape {tuple(self.fixed_noise.shape[1:])} per draw, "
                    f"but the latents of this backend have shape {tuple(shape)}; pass noise of "
                    f"shape [n_draws, {', '.join(map(str, shape))}]."
                )
            return self.fixed_noise
        noise = (keyed_noise(self.seed, key, shape) for key in self.noise_keys)
        return torch.stack(
            [eps if sign == 1 else -eps for eps, sign in zip(noise, self.signs, strict=True)]
        )


def keyed_noise(seed: int, key: int, shape: Sequence[int]) -> Tensor:
    """Generate the float32 standard normal noise of ``(seed, key)``."""
    state = np.random.SeedSequence((seed, key)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    return torch.randn(tuple(shape), generator=generator)


def _plain_round(
    timesteps: list[int], first_key: int, seed: int, fixed_noise: Tensor | None = None
) -> Draws:
    """Make a round of uniformly proposed timesteps, each with its own noise."""
    n = len(timesteps)
    return Draws(
        torch.tensor(timesteps, dtype=torch.int64),
        torch.ones(n, dtype=torch.float64),
        tuple(range(first_key, first_key + n)) if fixed_noise is None else (_FIXED,) * n,
        (1,) * n,
        seed,
        fixed_noise=fixed_noise,
    )
