r"""Timestep weights w(t), in ``log p(x | c) ~ -E_t[w(t) err]``.

All weights apply to the noise-prediction error ``err = ||eps - eps_hat||^2``, whatever the network
predicts. The weighted error is therefore, in terms of the network's own residual r (output less
target, as its training loss has it) and for alpha^2 + sigma^2 = 1, or alpha + sigma = 1 of a flow:

| network predicts   | err = "uniform"       | "native" | "likelihood": per step of log-SNR |
|--------------------|-----------------------|----------|-----------------------------------|
| epsilon            | r^2                   | r^2      | 1/2 r^2                           |
| v_prediction, flow | alpha^2 r^2           | r^2      | 1/2 alpha^2 r^2                   |
| sample             | alpha^2 / sigma^2 r^2 | r^2      | 1/2 alpha^2 / sigma^2 r^2         |

For v-prediction and flow networks, "uniform" is thus the training loss times alpha^2. Compared with
"native", it gives noisy timesteps, where alpha is small, less weight. "exponential" is
``exp(-7 t / T) ||x - x_hat||^2``, with ``||x - x_hat||^2 = sigma^2 / alpha^2 err``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..errors import InputValueError
from ..learner import FitRecord, Learner, Profile
from ..noise.prediction import PredictionTypeName
from ..noise.process import process_of
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import Reals, Table, check_parameters
from ..utils.display import DocumentedMixin


class Weighting(Learner, DocumentedMixin, BaseEstimator, ABC):
    """Base class of weightings, which give each timestep a weight.

    Attributes
    ----------
    is_likelihood : bool, default=False
        Class attribute: whether weighted squared errors are log-likelihoods, in nats. Predictions
        then warn if the network is too inexact at small t for that.
    """

    is_likelihood: ClassVar[bool] = False
    _constraints: ClassVar[Table] = {}

    @abstractmethod
    def weights(self, schedule: NoiseSchedule, prediction_type: PredictionTypeName) -> Tensor:
        """Compute the weight of each timestep.

        Parameters
        ----------
        schedule : NoiseSchedule
            Noise schedule of the backend, with T timesteps.
        prediction_type : {"epsilon", "v_prediction", "sample", "flow"}
            What the backend's network predicts.

        Returns
        -------
        Tensor of shape (T,), dtype float64
            Finite, non-negative weights.
        """


class UniformWeighting(Weighting):
    """Equal weights: the "simple" loss of Ho et al., arXiv 2006.11239.

    Examples
    --------
    >>> UniformWeighting().weights(NoiseSchedule.flow(3), "flow").tolist()
    [1.0, 1.0, 1.0]
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: PredictionTypeName) -> Tensor:
        return torch.ones(schedule.n_timesteps, dtype=torch.float64)


class LikelihoodWeighting(Weighting):
    r"""Weights that make the expected error a log-likelihood.

    With lambda the log-SNR, ``log p(x | c) = const - 1/2 \int E||eps - eps_hat||^2 d lambda`` is
    exact for the optimal predictor (Kong et al., "Information-Theoretic Diffusion", ICLR 2023).
    Timestep i therefore has weight ``T / 2 * |lambda(i - 1/2) - lambda(i + 1/2)|``, with infinite
    log-SNRs clipped to the finite range of the schedule.

    These weights grow without bound towards small t, where networks are least exact. Predictions
    warn if a network's errors there vary more than an accurate network's can; see
    :mod:`diffusion_classifier.scoring.likelihood_check`.

    Examples
    --------
    >>> LikelihoodWeighting().weights(NoiseSchedule([0.9, 0.5, 0.1], [0.1, 0.5, 0.9]), "flow")
    tensor([6.5917, 6.5917, 6.5917], dtype=torch.float64)
    """

    is_likelihood = True

    def weights(self, schedule: NoiseSchedule, prediction_type: PredictionTypeName) -> Tensor:
        log_snr = schedule.log_snr
        finite = log_snr[torch.isfinite(log_snr)]
        log_snr = log_snr.clamp(finite.min(), finite.max())
        if len(log_snr) < 2:
            return torch.ones_like(log_snr)
        middles = (log_snr[1:] + log_snr[:-1]) / 2
        # Extrapolate half a step beyond either end.
        first, last = 2 * log_snr[0] - middles[0], 2 * log_snr[-1] - middles[-1]
        edges = torch.cat([first[None], middles, last[None]])
        return schedule.n_timesteps / 2 * edges.diff().abs()


class ExponentialWeighting(Weighting):
    """Weights that decay exponentially with time: ``exp(-7 t / T)`` on the *image* error.

    Clark and Jaini, "Text-to-Image Diffusion Models are Zero-Shot Classifiers" (arXiv 2303.15233),
    weight ``||x - x_hat||^2``, which is ``sigma^2 / alpha^2`` times the noise-prediction error.
    For flow models, ``t / T`` is replaced by sigma. Timesteps without signal (alpha = 0) have
    weight 0.

    Examples
    --------
    >>> ExponentialWeighting().weights(NoiseSchedule([0.8, 0.6], [0.6, 0.8]), "epsilon")
    tensor([0.5625, 0.0537], dtype=torch.float64)
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: PredictionTypeName) -> Tensor:
        if not process_of(prediction_type).predicts_noise:
            raise InputValueError(
                'weighting="exponential" weighs noisy pictures, and this network predicts no '
                'noise; use weighting="uniform".'
            )
        if prediction_type == "flow":
            u = schedule.sigma
        else:
            u = torch.arange(schedule.n_timesteps, dtype=torch.float64) / schedule.n_timesteps
        weights = torch.exp(-7 * u) * (schedule.sigma / schedule.alpha) ** 2
        return weights.where(schedule.alpha > 0, torch.zeros_like(weights))


class NativeWeighting(Weighting):
    """Weights that restore the squared error of the network's own target (its training loss).

    For a v-prediction network, for example, the weighted error is ``||v - v_hat||^2``. Timesteps
    without signal (alpha = 0) have weight 0, unless the network predicts noise.

    Training weighs timesteps so that images look right, not so that classes are told apart. On four
    small v-prediction and flow networks, "native" answered up to 10 points fewer pictures than
    "uniform" (docs/benchmarks/weightings.md), which is therefore the default for all networks.

    Examples
    --------
    >>> NativeWeighting().weights(NoiseSchedule([0.8, 0.6], [0.6, 0.8]), "v_prediction")
    tensor([1.5625, 2.7778], dtype=torch.float64)
    """

    def weights(self, schedule: NoiseSchedule, prediction_type: PredictionTypeName) -> Tensor:
        scale = process_of(prediction_type).scale(schedule.alpha, schedule.sigma)
        return torch.where(scale == 0, torch.zeros_like(scale), scale**-2)


class FittedWeighting(Weighting):
    r"""Weights learned from labelled images, large where the true class stands out most.

    ``w(t)`` is the mean of the paired difference (error of a rival minus that of the true class)
    divided by its variance. For independent timesteps this is the best linear combination,
    Fisher's discriminant. The weights are smoothed over t, clipped at 0 and shrunk towards uniform
    weights.

    Their scale leaves the mean paired difference as it is with uniform weights. Log-odds therefore
    have the same average size as with "uniform", but are more reliable.

    Parameters
    ----------
    prior_images : float, default=10.0
        Strength of the shrinkage: the number of labelled images that uniform weights are worth.

    Attributes
    ----------
    weights_ : Tensor of shape (T,), dtype float64
        The learned weights.

    Raises
    ------
    InputValueError
        In ``learn``, if ``prior_images`` is negative or not finite, or no image was recorded; in
        ``weights``, if no weights were learned.

    References
    ----------
    R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936.

    Examples
    --------
    >>> FittedWeighting().needs_record
    True
    """

    needs_record = True
    _constraints: ClassVar[Table] = {"prior_images": Reals(0)}

    def __init__(self, prior_images: float = 10.0) -> None:
        self.prior_images = prior_images

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn the weights from a record; ``weights`` is ignored."""
        check_parameters(self)
        profile = Profile.learn(record)
        # A floor on the variance keeps the ratio finite.
        floor = 1e-3 * (profile.rms**2).mean()
        variance = (profile.variance + floor).clamp(min=torch.finfo(torch.float64).tiny)
        ratio = profile.mean.clamp(min=0) / variance
        fitted = ratio / ratio.mean() if ratio.any() else torch.ones_like(ratio)
        share = self.prior_images / (self.prior_images + len(record))
        mixed = share + (1 - share) * fitted
        before, after = profile.mean.mean(), (mixed * profile.mean).mean()
        self.weights_ = mixed * (before / after) if before > 0 and after > 0 else mixed
        return self

    def weights(self, schedule: NoiseSchedule, prediction_type: PredictionTypeName) -> Tensor:
        if not hasattr(self, "weights_"):
            raise InputValueError(
                'weighting="fitted" learns from labelled images; call fit(X, y) with images, or '
                'choose another weighting, such as "uniform".'
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
