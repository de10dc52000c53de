r"""Noise schedules: the signal and noise levels of each timestep.

The forward process of every supported diffusion model is

    z = alpha_t x + sigma_t eps,    eps ~ N(0, I),    t = 0 ... T - 1,

and ``lambda_t = log(alpha_t^2 / sigma_t^2)`` is its log signal-to-noise ratio (log-SNR).
Variance-preserving models have ``alpha^2 + sigma^2 = 1``, rectified flows ``alpha + sigma = 1``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputValueError
from ..utils.validation import check_positive_integer


class NoiseSchedule:
    """Signal and noise levels of ``T`` timesteps, in float64.

    In half precision ``sigma`` would be 7 % off at t = 1. Levels are therefore kept in float64,
    and only the noised latent is rounded to the network's dtype.

    Parameters
    ----------
    alpha, sigma : array-like of shape (T,)
        Signal level (at least 0) and noise level (above 0) of each timestep. Timestep 0 has the
        least noise: the log-SNR never rises, and ends lower than it begins.

    Attributes
    ----------
    alpha, sigma : Tensor of shape (T,), dtype float64
    n_timesteps : int

    Raises
    ------
    InputValueError
        If ``alpha`` and ``sigma`` are not vectors of the same positive length, a level is
        negative or not finite, ``sigma`` is 0 somewhere, or the log-SNR does not fall.

    Examples
    --------
    >>> schedule = NoiseSchedule.flow(4)
    >>> schedule.sigma.tolist()
    [0.125, 0.375, 0.625, 0.875]
    >>> round(schedule.log_snr[0].item(), 3)
    3.892
    """

    def __init__(self, alpha: Any, sigma: Any) -> None:
        self.alpha = torch.as_tensor(alpha, dtype=torch.float64).cpu()
        self.sigma = torch.as_tensor(sigma, dtype=torch.float64).cpu()
        if self.alpha.ndim != 1 or self.alpha.shape != self.sigma.shape or not len(self.alpha):
            raise InputValueError(
                f"alpha {tuple(self.alpha.shape)} and sigma {tuple(self.sigma.shape)} must be "
                "vectors of the same positive length."
            )
        for name, level in (("alpha", self.alpha), ("sigma", self.sigma)):
            bad = ~torch.isfinite(level) | (level < 0)
            if bool(bad.any()):
                t = int(bad.int().argmax())
                raise InputValueError(
                    f"{name}[{t}] = {level[t].item()} must be finite and non-negative."
                )
        if bool((self.sigma == 0).any()):
            raise InputValueError(
                f"sigma[{int((self.sigma == 0).int().argmax())}] = 0 must be positive: without "
                "noise there is nothing to predict."
            )
        self._check_falling()

    def _check_falling(self) -> None:
        """Raise unless timesteps run from image to noise."""
        snr = self.log_snr
        rises = (snr[1:] > snr[:-1]).nonzero()[:, 0]
        if len(rises):
            t = int(rises[0])
            what = f"it rises from {snr[t]:.4g} at t={t} to {snr[t + 1]:.4g} at t={t + 1}"
        elif len(snr) > 1 and snr[0] == snr[-1]:
            what = f"it is {snr[0]:.4g} at every t"
        else:
            return
        raise InputValueError(
            f"the log-SNR of a schedule must fall as t grows, but {what}. Timesteps run from image "
            "to noise, so reverse the levels if yours run the other way. A schedule made from one "
            "tensor holds alphas_cumprod (scheduler.alphas_cumprod), not betas."
        )

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Any) -> NoiseSchedule:
        """Make a variance-preserving schedule from ``alpha_t^2`` (Ho et al., arXiv 2006.11239).

        Parameters
        ----------
        alphas_cumprod : array-like of shape (T,)
            ``alpha_t^2`` of each timestep, falling: the cumulative product of ``1 - beta_t``.

        Returns
        -------
        NoiseSchedule
        """
        signal = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        return cls(signal.sqrt(), (1 - signal).sqrt())

    @classmethod
    def flow(cls, n_timesteps: int = 1000) -> NoiseSchedule:
        """Make a rectified flow's schedule (Liu et al., arXiv 2209.03003).

        Its levels are ``sigma = (t + 1/2) / T`` and ``alpha = 1 - sigma``. Networks receive the
        integer timestep t, as from every schedule. A network that was trained on a time in [0, 1]
        must be given ``(t + 1/2) / T``, the noise level itself; one that was trained on
        ``1000 * time``, as those of diffusers are, ``1000 * (t + 1/2) / T``.

        Parameters
        ----------
        n_timesteps : int, default=1000
            The number of timesteps T.

        Returns
        -------
        NoiseSchedule

        Examples
        --------
        >>> t = torch.tensor([0, 500, 999])
        >>> NoiseSchedule.flow(1000).at(t)[1].tolist(), ((t.double() + 0.5) / 1000).tolist()
        ([0.0005, 0.5005, 0.9995], [0.0005, 0.5005, 0.9995])
        """
        sigma = (torch.arange(n_timesteps, dtype=torch.float64) + 0.5) / n_timesteps
        return cls(1 - sigma, sigma)

    @classmethod
    def masking(cls, n_tokens: int) -> NoiseSchedule:
        """Make the schedule of a generator of tokens, ``prediction_type="tokens"``.

        Timestep t masks ``t + 1`` of the L tokens. There is no noise, so the levels only say how
        errors are weighted: the log-SNR falls by ``2 / L`` per timestep, at which "likelihood"
        weights are 1, because the errors are estimates of ``-log p(x | c)`` as they are. The
        natural temperature of uniform weights is then 1, too.

        Parameters
        ----------
        n_tokens : int
            The number of tokens L of an image.

        Returns
        -------
        NoiseSchedule

        Raises
        ------
        InputValueError
            If ``n_tokens`` is not a positive integer.

        Examples
        --------
        >>> [round(level, 6) for level in NoiseSchedule.masking(4).log_snr.tolist()]
        [0.75, 0.25, -0.25, -0.75]
        """
        n_tokens = check_positive_integer("n_tokens", n_tokens)
        log_snr = 1 - (2 * torch.arange(n_tokens, dtype=torch.float64) + 1) / n_tokens
        return cls.from_alphas_cumprod(log_snr.sigmoid())

    @classmethod
    def from_sigmas(cls, sigmas: Any, sigma_data: float = 1.0) -> NoiseSchedule:
        """Make a variance-preserving schedule from variance-exploding noise levels.

        ``x + sigma eps``, divided by ``sqrt(sigma^2 + sigma_data^2)``, is a noised
        ``x / sigma_data`` with the same noise and log-SNR ``log(sigma_data^2 / sigma^2)``
        (Karras et al., arXiv 2206.00364). Its variance is 1 if x has standard deviation
        ``sigma_data``.

        Parameters
        ----------
        sigmas : array-like of shape (T,)
            Noise levels, increasing.
        sigma_data : float, default=1.0
            Standard deviation of x.

        Returns
        -------
        NoiseSchedule

        Examples
        --------
        >>> NoiseSchedule.from_sigmas([0.375, 0.5], sigma_data=0.5).sigma
        tensor([0.6000, 0.7071], dtype=torch.float64)
        """
        sigma = torch.as_tensor(sigmas, dtype=torch.float64)
        total = (sigma**2 + sigma_data**2).sqrt()
        return cls(sigma_data / total, sigma / total)

    @property
    def n_timesteps(self) -> int:
        """The number of timesteps T."""
        return len(self.alpha)

    @property
    def log_snr(self) -> Tensor:
        """The log-SNR ``log(alpha^2 / sigma^2)``, of shape (T,); -inf where alpha is 0."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def at(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return float64 ``alpha`` and ``sigma`` at integer timesteps of any shape."""
        index = timesteps.cpu()
        return self.alpha[index], self.sigma[index]

    def __repr__(self) -> str:
        snr = self.log_snr
        return (
            f"NoiseSchedule(n_timesteps={self.n_timesteps}, "
            f"log_snr={snr[0].item():.2f}..{snr[-1].item():.2f})"
        )


def karras_sigmas(
    n_timesteps: int = 1000, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """Compute noise levels evenly spaced in ``sigma^(1 / rho)``.

    These are the levels of Karras et al., arXiv 2206.00364, equation 5, in increasing order.

    Parameters
    ----------
    n_timesteps : int, default=1000
    sigma_min, sigma_max : float
        First and last noise level, by default 0.002 and 80.
    rho : float, default=7.0
        Larger values place more levels near ``sigma_min``.

    Returns
    -------
    Tensor of shape (n_timesteps,), dtype float64
        Increasing.

    Examples
    --------
    >>> karras_sigmas(3, sigma_min=1.0, sigma_max=9.0, rho=2.0).tolist()
    [1.0, 4.0, 9.0]
    """
    first, last = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.linspace(first, last, n_timesteps, dtype=torch.float64) ** rho
