r"""Find out, without labels, whether "likelihood" weights rest on a network's own inaccuracy.

Let ``d = ||eps - eps_hat(z, t, c')||^2 - ||eps - eps_hat(z, t, c)||^2`` for an image x of class c
and another class c'. With ``u = eps_hat(z, t, c) - eps_hat(z, t, c')`` and the residual
``r = eps - eps_hat(z, t, c)``,

    d = ||u||^2 + 2 <r, u>.

For a perfect predictor the residual has mean 0 given z, and its covariance given z is on average at
most the identity. At every timestep, therefore,

    E d = E ||u||^2,    Var d <= 4 E d + Var ||u||^2.

A network whose predictions differ between classes by more than they should has a larger variance,
and a mean that is small beside it. "likelihood" weights grow without bound towards small t, where
classes hardly differ and networks are least exact, so there such differences can decide.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from ..noise.schedule import NoiseSchedule
from .class_losses import Scoring, contender_losses, count_draws

BIN = 2.0  # width of the bins of log-SNR
FEWEST = 30  # differences in a bin, below which nothing is concluded from it
LARGEST_RATIO = 3.0  # of Var d and 4 E d; 1 for a perfect predictor of images that are alike
LARGEST_SIGNAL = 0.5  # E d / sqrt(E d^2), above which images, not noise, make d vary


class LikelihoodCheck:
    """Differences between the best and the second-best class, by log-SNR.

    The classes are ranked by unweighted errors, so that the ranking does not depend on the weights
    in question.

    Parameters
    ----------
    schedule : NoiseSchedule
        T timesteps.
    scoring : Scoring
        With "likelihood" weights.

    Examples
    --------
    >>> scoring = Scoring(torch.ones(3).double(), torch.zeros(2).double(), torch.arange(2))
    >>> check = LikelihoodCheck(NoiseSchedule.flow(3), scoring)
    >>> errors, t = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 2])
    >>> check.add(errors, t, torch.ones(2), torch.tensor([True, True]))
    >>> check.noisy_share()  # too few differences for a conclusion
    0.0
    """

    def __init__(self, schedule: NoiseSchedule, scoring: Scoring) -> None:
        self.scoring = scoring
        log_snr = schedule.log_snr
        finite = log_snr[log_snr.isfinite()]
        self.lowest = float(finite.min())
        bins = (log_snr.clamp(finite.min(), finite.max()) - self.lowest) / BIN
        self.bin_of = bins.long()  # [T]
        self.sums = torch.zeros(4, int(self.bin_of.max()) + 1, dtype=torch.float64)

    def add(self, errors: Tensor, timesteps: Tensor, density: Tensor, active: Tensor) -> None:
        """Add one image.

        Parameters
        ----------
        errors : Tensor of shape (P, J)
            NaN where not evaluated.
        timesteps, density : Tensor of shape (J,)
            Timestep of each draw, and its proposal probability relative to the uniform one.
        active : Tensor of shape (P,), dtype bool
            Prompts that were active at the end of the race.
        """
        n = count_draws(errors)
        if not n:  # the image was skipped
            return
        errors, timesteps, density = errors[:, :n].double(), timesteps[:n], density[:n]
        losses = contender_losses(errors / density, active)
        best = int(losses.argmin())
        others = losses.where(self.scoring.class_of != self.scoring.class_of[best], torch.inf)
        d = errors[int(others.argmin())] - errors[best]
        taken = ~d.isnan()
        d, weights = d[taken], (self.scoring.weights[timesteps] / density)[taken]
        terms = torch.stack([torch.ones_like(d), d, d**2, (weights * d) ** 2])
        self.sums.index_add_(1, self.bin_of[timesteps[taken]], terms)

    def add_all(self, rows: Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Self:
        """Add every image of a record; each row holds the arguments of :meth:`add`."""
        for row in rows:
            self.add(*row)
        return self

    def variance_ratio(self) -> Tensor:
        """Return ``Var d / (4 E d)`` in each bin of log-SNR; infinite if the mean is not positive.

        NaN if there are no differences.
        """
        n, sum_d, sum_squares, _ = self.sums
        mean = sum_d / n
        return (sum_squares / n - mean**2) / (4 * mean).clamp(min=0)

    def noisy_bins(self) -> Tensor:
        """Return which bins of log-SNR no nearly perfect predictor can have produced."""
        n, sum_d, sum_squares, _ = self.sums
        images_differ = sum_d / n >= LARGEST_SIGNAL * (sum_squares / n).sqrt()
        return (n >= FEWEST) & (self.variance_ratio() > LARGEST_RATIO) & ~images_differ

    def noisy_share(self) -> float:
        """Return the share of the weighted differences' mean square that lies in noisy bins."""
        total = self.sums[3].sum()
        return float(self.sums[3][self.noisy_bins()].sum() / total) if total > 0 else 0.0

    def warn(self) -> None:
        """Warn if noisy bins make up most of the weighted differences."""
        share = self.noisy_share()
        if share > 0.5:
            noisy = self.noisy_bins().nonzero().flatten()
            worst = noisy[self.sums[3][noisy].argmax()]
            low = self.lowest + BIN * float(worst)
            warnings.warn(
                f'weighting="likelihood": {share:.0%} of the weighted differences between classes '
                "come from timesteps where this network's predictions vary more than an accurate "
                f"network's can, most of all at log-SNR {low:.0f} to {low + BIN:.0f}. Answers may "
                'then follow the network\'s inaccuracy and not the image. Use weighting="uniform", '
                'or "fitted" with labelled images.',
                UserWarning,
                stacklevel=5,
            )
