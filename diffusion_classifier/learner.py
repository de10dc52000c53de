r"""What labelled images teach about a race: how far rivals fall behind the true class, and where.

For an image, a draw j and a rival prompt r of its true class, the *paired difference* is

    d_rj = err_rj - err_(true)j,

both errors on the same noise. Its mean over timesteps is what a race detects, its variance is
what hides it. A :class:`Profile` holds both over t. Every rival is scaled to a mean square of 1
first, so that a few distant classes do not drown the close ones that decide a race.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .errors import InputValueError
from .noise.schedule import NoiseSchedule

_BANDWIDTH = 0.03  # of the Gaussian kernel that smooths over t, relative to T


@dataclass(frozen=True, eq=False)
class FitRecord:
    """Errors of labelled images on every draw: all that strategies learn from.

    Attributes
    ----------
    errors : Tensor of shape (N, P, J), dtype float32
        Complete: every prompt on every draw.
    true_class : Tensor of shape (N,), dtype int64
        Index of each image's class.
    class_of : Tensor of shape (P,), dtype int64
        The class of each prompt.
    timesteps : Tensor of shape (J,), dtype int64
    density : Tensor of shape (J,), dtype float64
        Proposal probability of each draw's timestep relative to a uniform one.
    round_of : Tensor of shape (J,), dtype int64
    log_prior : Tensor of shape (K,), dtype float64
    schedule : NoiseSchedule
    prediction_type : str

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
    prediction_type: str

    def __len__(self) -> int:
        return len(self.errors)

    def paired_differences(self, weights: Tensor | None = None) -> Iterator[Tensor]:
        """Rivals' errors less the true class's, image by image.

        Parameters
        ----------
        weights : Tensor of shape (T,), optional
            With weights, errors are contributions ``w(t) err / q - log prior``, as a pruner sees
            them. Without, they are the errors themselves.

        Yields
        ------
        Tensor of shape (R, J), dtype float64
            R prompts of other classes, less the best of the true class's prompts.
        """
        if weights is None:
            scale, shift = torch.ones_like(self.density), torch.zeros(len(self.class_of))
        else:
            scale, shift = weights[self.timesteps] / self.density, self.log_prior[self.class_of]
        for errors, true in zip(self.errors, self.true_class.tolist(), strict=True):
            contributions = errors.double() * scale - shift[:, None]
            own = self.class_of == true
            yield contributions[~own] - min(contributions[own], key=torch.mean)


@dataclass(frozen=True, eq=False)
class Profile:
    """Mean and variance of the paired difference over t, of rivals scaled to mean square 1.

    Attributes
    ----------
    mean, variance : Tensor of shape (T,), dtype float64
        Smoothed over t. Positive means: the true class has the smaller error.
    n_images : int
        Images that it was learned from.

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
        """Root of the mean square, of shape (T,)."""
        return (self.variance + self.mean**2).sqrt()

    @classmethod
    def learn(cls, record: FitRecord) -> Profile:
        """The profile of a record.

        Raises
        ------
        ValueError
            If the record holds no images.
        """
        if not len(record):
            raise InputValueError(
                "a profile is learned from labelled images, but none were recorded."
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
    """A strategy that may learn from labelled images; by default it does not.

    Attributes
    ----------
    needs_record : bool
        Whether ``learn`` wants a record: then ``fit(X, y)`` makes one.
    """

    needs_record = False

    def learn(self, record: FitRecord, weights: Tensor | None = None) -> Self:
        """Learn from a record, and from the weights (T,) that its errors will get.

        What is learned is kept in attributes that end in an underscore.
        """
        return self


def _kernel(timesteps: Tensor, n_timesteps: int) -> Tensor:
    """Local averages: weights [T, J] of draws at ``timesteps`` for each of T timesteps."""
    distance = torch.arange(n_timesteps)[:, None] - timesteps
    return torch.softmax(-0.5 * (distance.double() / (_BANDWIDTH * n_timesteps)) ** 2, 1)
