r"""The variational bound of networks that also predict the variance of a reverse step.

With ``z_t`` the latent noised to timestep t, a network that predicts noise and variance defines

    p(z_{t-1} | z_t, c) = N(mean(eps_hat), exp(s)),   s = (1 + v)/2 log beta_t + (1 - v)/2 log b_t,

where ``b_t`` is the variance of the true posterior ``q(z_{t-1} | z_t, x)`` and ``v``, in [-1, 1],
the network's second output (Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic
Models", ICML 2021, arXiv 2102.09672). Both means are linear in the noise, so they differ by a
multiple of its residual, and log p(x | c) is bounded from below by minus the sum over t of

    L_t = KL( q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t, c) )      t > 0
    L_0 = -log p(x | z_0, c), with x rounded to 8 bits in [-1, 1]

up to a constant in c. The *error* of a draw is ``T L_t``, in nats and summed over dimensions: its
mean over uniform t is the bound. DiT (arXiv 2212.09748) is trained on it, rounding included, though
its latents are not of 8 bits. Li et al. (arXiv 2303.16203) score DiT by the mean of ``L_t`` in bits
per dimension, over a grid without t = 0: our error by ``T D log 2``, which orders classes alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputValueError
from .prediction import expand
from .schedule import NoiseSchedule

HALF_LEVEL = 1 / 255  # half the distance of 8-bit levels in [-1, 1]
OUTERMOST = 0.999  # beyond it a value is of the first or last level, which has no outer bound
LEAST = 1e-12  # probability that a level is given at least


class VariationalBound:
    """Errors whose mean over draws bounds ``-log p(x | c)``, in nats.

    Parameters
    ----------
    schedule : NoiseSchedule
        Variance-preserving, with less signal at every timestep.

    Raises
    ------
    ValueError
        If the schedule is another.

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> bound = VariationalBound(NoiseSchedule.from_alphas_cumprod([0.9, 0.5, 0.2]))
    >>> exact = torch.zeros(1, 4)  # no residual, and v = -1: the true posterior
    >>> bound.errors(exact, exact - 1, torch.zeros(1, 4), torch.tensor([2]))
    tensor([0.])
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        alpha, sigma = schedule.alpha, schedule.sigma
        signal = alpha**2
        before = torch.cat([signal.new_ones(1), signal[:-1]])
        beta = 1 - signal / before
        preserving = torch.allclose(signal + sigma**2, torch.ones_like(signal), atol=1e-5)
        if not preserving or bool((beta <= 0).any()) or bool((alpha == 0).any()):
            raise InputValueError(
                'loss="vlb" needs a variance-preserving schedule (alpha^2 + sigma^2 = 1) whose '
                f"signal falls at every timestep and never to 0, not {schedule}; use loss='l2'."
            )
        self.n_timesteps = schedule.n_timesteps
        # the true posterior's variance; at t = 0 it is 0, and the next one stands in for it
        variance = beta * (1 - before) / sigma**2
        variance[0] = variance[1] if len(variance) > 1 else beta[0]
        self._shift = beta / (sigma * (1 - beta).sqrt())  # of the mean, by a unit of residual
        self._gain = self._shift**2 / variance
        self._low, self._range = variance.log(), beta.log() - variance.log()

    def errors(self, residual: Tensor, variance: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """``T L_t`` of R rows.

        Parameters
        ----------
        residual : Tensor of shape (R, ...)
            ``eps_hat - eps``.
        variance : Tensor of shape (R, ...)
            The network's second output v.
        x : Tensor of shape (R, ...)
            Latents without noise.
        t : Tensor of shape (R,), dtype int64

        Returns
        -------
        Tensor of shape (R,), in the residual's dtype
        """
        tables = (self._shift, self._gain, self._low, self._range)
        # moved before they are indexed: reading t on the host would wait for the device
        shift, gain, low, span = (expand(table.to(residual)[t], residual) for table in tables)
        excess = span * (variance.to(residual.dtype) + 1) / 2  # log variance over the posterior's
        divergence = (excess + torch.expm1(-excess) + gain * residual**2 * torch.exp(-excess)) / 2
        deviation = torch.exp((low + excess) / 2)
        surprise = -_log_probability(x.to(residual.dtype), shift * residual, deviation)
        terms = torch.where(expand(t == 0, residual) > 0, surprise, divergence)
        return self.n_timesteps * terms.flatten(1).sum(1)


def _log_probability(x: Tensor, offset: Tensor, deviation: Tensor) -> Tensor:
    """Log probability of the 8-bit level of ``x`` under a normal that is ``offset`` away."""
    ndtr, distance = torch.special.ndtr, offset.abs()  # in the lower tail, which floats resolve
    inside = ndtr((HALF_LEVEL - distance) / deviation) - ndtr((-HALF_LEVEL - distance) / deviation)
    first = ndtr((offset + HALF_LEVEL) / deviation)
    last = ndtr((HALF_LEVEL - offset) / deviation)
    level = torch.where(x < -OUTERMOST, first, torch.where(x > OUTERMOST, last, inside))
    return level.clamp(min=LEAST).log()
