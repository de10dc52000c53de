r"""The natural temperature: the unit of class losses, known without any data.

Up to a constant in c (Kong et al., "Information-Theoretic Diffusion", ICLR 2023),

    -log p(x | c) = mean_t[ v(t) err_t ],    v(t): "likelihood" weights, in nats.

Losses with other weights w are not in nats, so their softmax says little: with "uniform" weights,
probabilities come out near 1/K. The temperature ``T = median_t( w(t) / v(t) )`` restores the unit
where most timesteps lie. The mean would not do: v grows without bound towards small t, where
networks are least exact.

A network's evidence can also be wrong by far more than chance. An image tells how much, without a
label. Let ``d_k`` be the losses of rival k less those of the winner, in nats, averaged over the
draws of each of five *levels*: bins of t with equally many draws. If the levels disagree, the
variance of their mean is large:

    V_k = variance of d_k between levels / number of levels,    V = mean_k V_k, weighted by draws.

The image's own temperature is ``T max(1, sqrt(V / 20))``: for evidence whose standard error is
above 4.5 nats, T is in proportion to it. A probability averaged over normal errors of the evidence
is about that at a temperature in proportion to their standard deviation (MacKay, "The Evidence
Framework Applied to Classification Networks", 1992). The number 20 was chosen on Gaussian class
models of eight data sets, and tried on networks (docs/benchmarks/probabilities.md).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..noise.schedule import NoiseSchedule
from .weighting import FittedWeighting, LikelihoodWeighting, Weighting

Unit = Literal["given", "nats", "natural"]
UNITS: tuple[Unit, ...] = ("given", "nats", "natural")
LEVELS = 5
LARGEST_VARIANCE = 20.0  # of the evidence, in squared nats, at which T begins to grow

# With a residual r ~ N(0, 1) and a small difference u of two predictions, the mean of
# loss(r + u) - loss(r) is u^2 times this number.
_SCALE_OF_LOSS = {
    "l2": 1.0,
    "l1": 1 / math.sqrt(2 * math.pi),
    "huber": math.erf(1 / math.sqrt(2)) / 2,
}


def natural_temperature(
    weighting: Weighting, weights: Tensor, schedule: NoiseSchedule, loss: str = "l2"
) -> float:
    """Compute the temperature that turns weighted errors into nats.

    Parameters
    ----------
    weighting : Weighting
        FittedWeighting keeps the size of evidence under uniform weights, and so their temperature.
    weights : Tensor of shape (T,), dtype float64
        Weights w(t) of ``weighting``.
    schedule : NoiseSchedule
    loss : {"l2", "l1", "huber", "vlb"}, default="l2"
        "l1" and "huber" have no likelihood of their own. They are compared with "l2" as if
        residuals were standard normal.

    Returns
    -------
    float
        1 for likelihood weights and for "vlb", which are in nats already.

    Examples
    --------
    >>> from diffusion_classifier.scoring import UniformWeighting
    >>> schedule = NoiseSchedule.flow(1000)
    >>> uniform = UniformWeighting()
    >>> round(natural_temperature(uniform, uniform.weights(schedule, "flow"), schedule), 2)
    0.19
    """
    if unit_of(weighting, loss) == "nats":
        return 1.0
    likelihood = LikelihoodWeighting().weights(schedule, "epsilon")
    if isinstance(weighting, FittedWeighting):
        weights = torch.ones_like(weights)
    counted = (weights > 0) & (likelihood > 0)
    if not bool(counted.any()):
        return 1.0
    # quantile, because torch's median takes the lower of two middle values
    ratio = (weights[counted].log() - likelihood[counted].log()).quantile(0.5).exp()
    return float(ratio) * _SCALE_OF_LOSS[loss]


def unit_of(weighting: Weighting, loss: str) -> Unit:
    """Return "nats" if weighted errors are log-likelihoods as they are, else "natural"."""
    return "nats" if weighting.is_likelihood or loss == "vlb" else "natural"


def doubt(contributions: Tensor, timesteps: Tensor, class_of: Tensor) -> float:
    """Compute by how much an image's own temperature exceeds the natural one.

    Parameters
    ----------
    contributions : Tensor of shape (C, J), dtype float64
        Contributions of contenders to their losses, in nats; NaN after the last draw of each.
    timesteps : Tensor of shape (J,)
    class_of : Tensor of shape (C,)
        Class of each contender.

    Returns
    -------
    float
        At least 1.

    Examples
    --------
    >>> d = torch.tensor([1.0, 9.0, 17.0, 25.0, 33.0]).double()
    >>> levels_agree, levels_differ = torch.stack([0 * d, 0 * d + 17]), torch.stack([0 * d, d])
    >>> doubt(levels_agree, torch.arange(5), torch.arange(2))
    1.0
    >>> round(doubt(levels_differ, torch.arange(5), torch.arange(2)), 3)  # V = 32
    1.265
    """
    taken = ~contributions.isnan()
    n_draws = taken.sum(1)
    most = int(n_draws.max())
    leader = int(contributions.mean(1).where(n_draws == most, torch.inf).argmin())
    rivals = (class_of != class_of[leader]) & (n_draws > 0)
    if not bool(rivals.any()):
        return 1.0
    differences = (contributions[rivals] - contributions[leader]).nan_to_num()
    level = timesteps.argsort(stable=True).argsort() * LEVELS // most
    member = torch.nn.functional.one_hot(level, LEVELS).double()
    n_in_level = taken[rivals].double() @ member
    filled = n_in_level > 0
    n_levels = filled.sum(1, keepdim=True)
    means = (differences @ member) / n_in_level.clamp(min=1)
    deviations = (means - means.sum(1, keepdim=True) / n_levels) * filled
    variances = deviations.square().sum(1) / (n_levels * (n_levels - 1)).clamp(min=1)[:, 0]
    share = n_draws[rivals].double()
    variance = float((share * variances).sum() / share.sum())
    return max(1.0, math.sqrt(variance / LARGEST_VARIANCE))
