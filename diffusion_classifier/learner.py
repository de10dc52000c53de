r"""Statistics that strategies learn from labelled images.

For an image, a draw j and a *rival* r (a prompt of another class), the *paired difference* is

    d_rj = err_rj - err_(true)j,

where both errors are on the same draw. Its mean over timesteps is the signal that tells the classes
apart, its variance is the noise. A :class:`Profile` holds both as functions of t. The differences
of each rival are first scaled to a mean square of 1, so that a few distant classes do not dominate
the close ones, which decide a race.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from .errors import InputValueError
from .noise.prediction import PredictionTypeName
from .noise.schedule import NoiseSchedule

_BANDWIDTH = 0.03  # standard deviation of the Gaussian kernel over t, relative to T


@dataclass(frozen=True, eq=False)
class FitRecord:
    """Errors of labelled images, from which strategies learn.

    Attributes
    ----------
    errors : Tensor of shape (N, P, J), dtype float32
        Error of each image and prompt on each draw, without missing values.
    true_class : Tensor of shape (N,), dtype int64
        Class index of each image.
    class_of : Tensor of shape (P,), dtype int64
        Class index of each prompt.
    timesteps : Tensor of shape (J,), dtype int64
        Timestep of each draw.
    density : Tensor of shape (J,), dtype float64
        Proposal probability of each draw's timestep, relative to the uniform distribution.
    round_of : Tensor of shape (J,), dtype int64
        Round of each draw.
    log_prior : Tensor of shape (K,), dtype float64
    schedule : NoiseSchedule
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}

    Examples
    --------
    >>> record = FitRecord(
    ...     errors=torch.tensor([[[1.0, 2.0], [4.0, 3.0]]]), true_class=torch.tensor([0]),
    ...     class_of=torch.tensor([0, 1]), timesteps=torch.tensor([0, 2]),
    ...     density=torch.ones(2), round_of=torch.tensor([0, 0]), log_prior=torch.zeros(2),
    ...     schedule=NoiseSchedule.flow(3), prediction_type="flow")
    >>> [differences.tolist() for differences in record.paired_differences()]
    [[[3.0, 1.0]]]
    """

    errors: Tensor
    true_class: Tensor
    class_of: Tensor
    timesteps: Tensor
    density: Tensor
    round_of: Tensor
    log_prior: Tensor
    schedule: NoiseSchedule
    prediction_type: PredictionTypeName

    def __len__(self) -> int:
        return len(self.errors)

    def paired_differences(self, weights: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the paired differences of each image.

        Parameters
        ----------
        weights : Tensor of shape (T,), optional
            If given, take differences of the contributions ``w(t) err / q - log prior`` that a
            pruner sees. By default, take differences of errors.

        Yields
        ------
        Tensor of shape (R, J), dtype float64
            Values of the R prompts of other classes, minus those of the true class's best prompt.
        """
        for contributions, true in zip(
            self.contributions(weights), self.true_class.tolist(), strict=True
        ):
            own = self.class_of == true
            yield contributions[~own] - min(contributions[own], key=torch.mean)

    def contributions(self, weights: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the contributions of each image.

        Parameters
        ----------
        weights : Tensor of shape (T,), optional
            Weights of the contributions ``w(t) err / q - log prior`` that a pruner sees. By
            default, yield errors.

        Yields
        ------
        Tensor of shape (P, J), dtype float64
        """
        if weights is None:
            scale, shift = torch.ones_like(self.density), torch.zeros(len(self.class_of))
        else:
            scale, shift = weights[self.timesteps] / self.density, self.log_prior[self.class_of]
        for errors in self.errors:
            yield errors.double() * scale - shift[:, None]


@dataclass(frozen=True, eq=False)
class Profile:
    """Mean and variance of the scaled paired difference, as functions of the timestep.

    The differences of each rival are scaled to a mean square of 1.

    Attributes
    ----------
    mean, variance : Tensor of shape (T,), dtype float64
        Smoothed over t. The mean is positive where the true class has the smaller error.
    n_images : int
        Number of images that the profile was learned from.

    Examples
    --------
    >>> record = FitRecord(
    ...     errors=torch.tensor([[[1.0, 2.0], [4.0, 3.0]]]), true_class=torch.tensor([0]),
    ...     class_of=torch.tensor([0, 1]), timesteps=torch.tensor([0, 2]),
    ...     density=torch.ones(2), round_of=torch.tensor([0, 0]), log_prior=torch.zeros(2),
    ...     schedule=NoiseSchedule.flow(3), prediction_type="flow")
    >>> Profile.learn(record).mean
    tensor([1.3416, 0.8944, 0.4472], dtype=torch.float64)
    """

    mean: Tensor
    variance: Tensor
    n_images: int

    @property
    def rms(self) -> Tensor:
        """Root mean square of the scaled paired difference, of shape (T,)."""
        return (self.variance + self.mean**2).sqrt()

    @classmethod
    def learn(cls, record: FitRecord) -> Profile:
        """Compute the profile of a record.

        Raises
        ------
        InputValueError
            If the record holds no images.
        """
        if not len(record):
            raise InputValueError(
                "the record holds no images to learn a profile from; call fit(X, y) with images."
            )
        first = second = torch.zeros(len(record.timesteps), dtype=torch.float64)
        for differences in record.paired_differences():
            squares = differences**2
            scale = squares.mean(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
            first = first + (differences / scale.sqrt()).mean(0)
            second = second + (squares / scale).mean(0)
        kernel = _kernel(record.timesteps, record.schedule.n_timesteps)
        mean, square = kernel @ first / len(record), kernel @ second / len(record)
        return cls(mean, (square - mean**2).clamp(min=0), len(record))


class Learner:
    """Base class of strategies that may learn from labelled images; by default they do not.

    Attributes
    ----------
    needs_record : bool, default=False
        Whether ``learn`` needs a record. If True, ``fit(X, y)`` makes one.
    """

    needs_record = False

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn from the errors of labelled images.

        Learned values are stored in attributes whose names end in an underscore.

        Parameters
        ----------
        record : FitRecord
            Errors of labelled images.
        weights : Tensor of shape (T,), optional
            Weight w(t) of the errors at prediction.

        Returns
        -------
        Learner
            The strategy itself.
        """
        return self

    def _given_or_learned(self, name: str) -> Any:
        """Return the parameter ``name``, or if it is None, what ``learn`` stored as ``name_``."""
        value = getattr(self, name)
        if value is None:
            value = getattr(self, f"{name}_", None)
        if value is None:
            kind = type(self).__name__
            raise InputValueError(
                f"{kind} has no {name}: pass {kind}({name}=...), or learn it from labelled images "
                "with fit(X, y)."
            )
        return value


def _kernel(timesteps: Tensor, n_timesteps: int) -> Tensor:
    """Compute smoothing weights [T, J]: row t averages the draws whose timestep is near t."""
    distance = torch.arange(n_timesteps)[:, None] - timesteps
    return torch.softmax(-0.5 * (distance.double() / (_BANDWIDTH * n_timesteps)) ** 2, 1)
