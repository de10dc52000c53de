r"""The variational bound for networks that also predict the variance of a reverse step.

Let ``z_t`` be the latent noised to timestep t. A network that predicts noise and variance defines

    p(z_{t-1} | z_t, c) = N(mean(eps_hat), exp(s)),   s = (1 + v)/2 log beta_t + (1 - v)/2 log b_t,

where ``b_t`` is the variance of the true posterior ``q(z_{t-1} | z_t, x)`` and ``v``, in [-1, 1],
is the network's second output (Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic
Models", ICML 2021, arXiv 2102.09672). The means of p and q are both linear in the noise, so they
differ by a multiple of the noise residual. Up to a constant in c, ``-sum_t L_t`` is a lower bound
of log p(x | c), with

    L_t = KL( q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t, c) )      t > 0
    L_0 = -log p(x | z_0, c), with x rounded to 8 bits in [-1, 1].

The *error* of a draw is ``T L_t``, in nats and summed over the D dimensions, so its mean over
uniform t is the negative bound. DiT (arXiv 2212.09748) is trained on this bound, including the
rounding, although its latents do not have 8 bits. Li et al. (arXiv 2303.16203) score DiT by the
mean of ``L_t`` in bits per dimension, over a grid without t = 0. Apart from t = 0 that is our error
divided by ``T D log 2``, a constant that does not change the ranking of classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputValueError
from .prediction import expand
from .schedule import NoiseSchedule

HALF_LEVEL = 1 / 255  # half the distance between two 8-bit levels in [-1, 1]
OUTERMOST = 0.999  # values beyond +-OUTERMOST belong to the two open-ended outer levels
LEAST = 1e-12  # lower bound on the probability of a level


class VariationalBound:
    """Errors whose mean over draws is an upper bound of ``-log p(x | c)``, in nats.

    The bound holds up to a constant in c.

    Parameters
    ----------
    schedule : NoiseSchedule
        A variance-preserving schedule whose ``alpha`` decreases but stays above 0.

    Raises
    ------
    InputValueError
        If the schedule does not meet these conditions.

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> bound = VariationalBound(NoiseSchedule.from_alphas_cumprod([0.9, 0.5, 0.2]))
    >>> exact = torch.zeros(1, 4)  # residual 0 and v = -1 give the true posterior: KL is 0
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
                f"alpha decreases at every timestep and stays above 0, not {schedule}; "
                "use loss='l2'."
            )
        self.n_timesteps = schedule.n_timesteps
        # Variance b_t of the true posterior. At t = 0 it is 0, so that of t = 1 is used there.
        variance = beta * (1 - before) / sigma**2
        variance[0] = variance[1] if len(variance) > 1 else beta[0]
        # A unit of noise residual shifts the mean of the reverse step by this much.
        self._shift = beta / (sigma * (1 - beta).sqrt())
        self._gain = self._shift**2 / variance
        self._low, self._range = variance.log(), beta.log() - variance.log()

    def errors(self, residual: Tensor, variance: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Compute the error ``T L_t`` of each row, in nats.

        Parameters
        ----------
        residual : Tensor of shape (R, ...)
            Noise residual ``eps_hat - eps``.
        variance : Tensor of shape (R, ...)
            The network's second output v.
        x : Tensor of shape (R, ...)
            Clean latents.
        t : Tensor of shape (R,), dtype int64
            Timesteps.

        Returns
        -------
        Tensor of shape (R,), in the residual's dtype
        """
        return self.terms(residual, variance, x, t).flatten(1).sum(1)

    def terms(self, residual: Tensor, variance: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Compute what each element of the latent adds to the error, shaped like ``residual``."""
        tables = (self._shift, self._gain, self._low, self._range)
        # Move the tables to the device: indexing them on the host would wait for t.
        shift, gain, low, span = (expand(table.to(residual)[t], residual) for table in tables)
        excess = span * (variance.to(residual.dtype) + 1) / 2  # log(predicted variance / b_t)
        divergence = (excess + torch.expm1(-excess) + gain * residual**2 * torch.exp(-excess)) / 2
        deviation = torch.exp((low + excess) / 2)
        surprise = -_log_probability(x.to(residual.dtype), shift * residual, deviation)
        return self.n_timesteps * torch.where(expand(t == 0, residual) > 0, surprise, divergence)


def _log_probability(x: Tensor, offset: Tensor, deviation: Tensor) -> Tensor:
    """Compute the log probability of the 8-bit level of ``x`` under N(x - offset, deviation^2)."""
    # abs() moves both arguments to the lower tail, where ndtr is accurate.
    ndtr, distance = torch.special.ndtr, offset.abs()
    inside = ndtr((HALF_LEVEL - distance) / deviation) - ndtr((-HALF_LEVEL - distance) / deviation)
    first = ndtr((offset + HALF_LEVEL) / deviation)
    last = ndtr((HALF_LEVEL - offset) / deviation)
    level = torch.where(x < -OUTERMOST, first, torch.where(x > OUTERMOST, last, inside))
    return level.clamp(min=LEAST).log()
