r"""How much each timestep's error counts: w(t) in ``log p(x | c) ~ -E_t[w(t) err]``.

All weights act on the noise-prediction error ``||eps - eps_hat||^2``, whatever the network
predicts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord, Learner, Profile
from ..noise.prediction import PREDICTION_TYPES
from ..noise.schedule import NoiseSchedule
from ..utils.display import DocumentedMixin


class Weighting(Learner, DocumentedMixin, BaseEstimator, ABC):
    """A weight for every timestep."""

    @abstractmethod
    def weights(self, schedule: NoiseSchedule, prediction_type: str) -> Tensor:
        """``w`` of shape (T,), dtype float64, non-negative and finite."""


class UniformWeighting(Weighting):
    """Every timestep counts the same: the "simple" loss (Ho et al., arXiv 2006.11239).

    Examples
    --------
    >>> UniformWeighting().weights(NoiseSchedule.flow(3), "flow").tolist()
    [1.0, 1.0, 1.0]
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: str) -> Tensor:
        return torch.ones(schedule.n_timesteps, dtype=torch.float64)


class LikelihoodWeighting(Weighting):
    r"""Weights that make the expected error a log-likelihood.

    ``log p(x | c) = const - 1/2 \int E||eps - eps_hat||^2 d lambda`` holds exactly for an exact
    predictor (Kong et al., "Information-Theoretic Diffusion", ICLR 2023), so timestep i counts
    ``T / 2 * |lambda(i - 1/2) - lambda(i + 1/2)|``, over the finite log-SNR of the schedule.

    Examples
    --------
    >>> LikelihoodWeighting().weights(NoiseSchedule([0.9, 0.5, 0.1], [0.1, 0.5, 0.9]), "flow")
    tensor([6.5917, 6.5917, 6.5917], dtype=torch.float64)
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: str) -> Tensor:
        log_snr = schedule.log_snr
        finite = log_snr[torch.isfinite(log_snr)]
        log_snr = log_snr.clamp(finite.min(), finite.max())
        if len(log_snr) < 2:
            return torch.ones_like(log_snr)
        middles = (log_snr[1:] + log_snr[:-1]) / 2
        # Half a step beyond either end, by the slope there.
        first, last = 2 * log_snr[0] - middles[0], 2 * log_snr[-1] - middles[-1]
        edges = torch.cat([first[None], middles, last[None]])
        return schedule.n_timesteps / 2 * edges.diff().abs()


class ExponentialWeighting(Weighting):
    """``exp(-7 t / T)`` on the error in *image* space, restated for the noise error.

    Clark & Jaini, "Text-to-Image Diffusion Models are Zero-Shot Classifiers"
    (arXiv 2303.15233), weigh ``||x - x_hat||^2``, which is ``sigma^2 / alpha^2`` times the
    noise error. For flow models time is sigma itself. Timesteps without signal count nothing.

    Examples
    --------
    >>> ExponentialWeighting().weights(NoiseSchedule([0.8, 0.6], [0.6, 0.8]), "epsilon")
    tensor([0.5625, 0.0537], dtype=torch.float64)
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: str) -> Tensor:
        if prediction_type == "flow":
            u = schedule.sigma
        else:
            u = torch.arange(schedule.n_timesteps, dtype=torch.float64) / schedule.n_timesteps
        weights = torch.exp(-7 * u) * (schedule.sigma / schedule.alpha) ** 2
        return weights.where(schedule.alpha > 0, torch.zeros_like(weights))


class NativeWeighting(Weighting):
    """The network's own training loss: its target's squared error, restated for the noise.

    Zero where the noise error says nothing of the target (``alpha = 0`` with v-prediction).

    Examples
    --------
    >>> NativeWeighting().weights(NoiseSchedule([0.8, 0.6], [0.6, 0.8]), "v_prediction")
    tensor([1.5625, 2.7778], dtype=torch.float64)
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: str) -> Tensor:
        scale = PREDICTION_TYPES[prediction_type].scale(schedule.alpha, schedule.sigma)
        return torch.where(scale == 0, torch.zeros_like(scale), scale**-2)


class FittedWeighting(Weighting):
    r"""Weights learned from labelled images: how well each timestep tells the true class.

    ``w(t)`` is the mean over the variance of the paired difference (rival less true class): the
    best linear combination of independent timesteps, Fisher's discriminant. It is smoothed over
    t, clipped at 0 and shrunk towards uniform, which counts as much as ``prior_images`` images.

    Its scale keeps the mean paired difference what it is with uniform weights: log-odds are then
    as large as those of "uniform" on average, and what differs is how reliable they are.

    Parameters
    ----------
    prior_images : float, default=10.0
        Worth of the uniform weights, in labelled images.

    Attributes
    ----------
    weights_ : Tensor of shape (T,), dtype float64
        Learned.

    Raises
    ------
    ValueError
        In ``weights``, if nothing was learned; in ``learn``, if ``prior_images`` is negative.

    References
    ----------
    R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936.

    Examples
    --------
    >>> FittedWeighting().needs_record
    True
    """

    needs_record = True

    def __init__(self, prior_images: float = 10.0) -> None:
        self.prior_images = prior_images

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn the weights; those given are not used."""
        if self.prior_images < 0:
            raise InputValueError(f"prior_images={self.prior_images!r} must not be negative.")
        profile = Profile.learn(record)
        # Where nothing varies nothing was seen: a floor keeps the ratio finite.
        floor = 1e-3 * (profile.rms**2).mean()
        variance = (profile.variance + floor).clamp(min=torch.finfo(torch.float64).tiny)
        ratio = profile.mean.clamp(min=0) / variance
        fitted = ratio / ratio.mean() if ratio.any() else torch.ones_like(ratio)
        share = self.prior_images / (self.prior_images + len(record))
        mixed = share + (1 - share) * fitted
        before, after = profile.mean.mean(), (mixed * profile.mean).mean()
        self.weights_ = mixed * (before / after) if before > 0 and after > 0 else mixed
        return self

    def weights(self, schedule: NoiseSchedule, prediction_type: str) -> Tensor:
        if not hasattr(self, "weights_"):
            raise InputValueError(
                'weighting="fitted" learns from labelled images: call fit(X, y) with images, or '
                'choose other weights, such as "uniform".'
            )
        return self.weights_


WeightingName = Literal["uniform", "likelihood", "exponential", "native", "fitted"]
WEIGHTINGS: dict[str, type[Weighting]] = {
    "uniform": UniformWeighting,
    "likelihood": LikelihoodWeighting,
    "exponential": ExponentialWeighting,
    "native": NativeWeighting,
    "fitted": FittedWeighting,
}
