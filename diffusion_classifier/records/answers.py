"""What a table of errors answers: losses, probabilities and certificates of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputValueError
from ..scoring.calibration import Calibrator
from ..scoring.candidates import Candidates, OneRace
from ..scoring.class_losses import Scoring
from ..utils.display import short_repr
from .certificate import certify
from .setup import SharedSettings


class Answers(SharedSettings):
    """Base class of error tables: what follows from the errors without another race."""

    errors: NDArray[np.float32]
    active: NDArray[np.bool_]
    timesteps: NDArray[np.int64]
    density: NDArray[np.float64]
    round_of: NDArray[np.int64]
    skipped: tuple[tuple[int, str], ...]
    candidates: Candidates | None

    @property
    def certificate(self) -> np.recarray:
        """How each image's race ended; see :mod:`diffusion_classifier.records.certificate`.

        Returns
        -------
        recarray of shape (N,)
            ``resolved``: whether a single class was left at the end; ``alpha``: see
            :class:`RecordSetup`; ``winner``, ``runner_up``: labels; ``margin``,
            ``standard_error``: the difference of their losses, and its standard error over
            rounds; ``n_draws``: the number of draws taken. Skipped images have no draws, and
            None as winner and runner-up.
        """
        return certify(self.rows(), self.round_of, self.setup, self.candidates)

    def class_losses(self, scoring: Scoring | None = None) -> Tensor:
        """Class losses [N, K] in float64, by default with the scoring of the race.

        They are infinite for classes that were no candidates.
        """
        scoring = self.scoring if scoring is None else scoring
        return self._answers(scoring.class_losses_of, lambda own: own.class_losses, scoring)

    def log_posterior(self, scoring: Scoring | None = None) -> Tensor:
        """Log posterior [N, K] of the classes, by default with the scoring of the race."""
        scoring = self.scoring if scoring is None else scoring
        return self._answers(scoring.log_posterior_of, lambda own: own.log_posterior, scoring)

    def predict_proba(self, calibrator: Calibrator | None = None) -> NDArray[np.float64]:
        """Compute the posteriors of the classes.

        Parameters
        ----------
        calibrator : Calibrator, optional
            One that knows its temperature, such as ``calibrator_`` of a fitted classifier. By
            default that of the classifier that made the table: 1 if it has no calibrator.

        Returns
        -------
        ndarray of shape (N, K)
            Rows sum to 1, and are NaN for skipped images. Columns are in the order of ``classes``.

        Raises
        ------
        InputValueError
            If the calibrator has not learned a temperature.
        """
        scoring = self.scoring
        if calibrator is not None:
            if not hasattr(calibrator, "log_temperature_"):
                raise InputValueError(
                    f"calibrator={short_repr(calibrator)} has no temperature; pass one that has "
                    "learned, such as calibrator_ of a fitted classifier."
                )
            scoring = scoring.calibrated(calibrator)
        return self.log_posterior(scoring).exp().numpy()

    def _answers(
        self,
        answer: Callable[..., Tensor],
        among: Callable[[OneRace], Callable[..., Tensor]],
        scoring: Scoring,
    ) -> Tensor:
        """Apply a function of ``rows()`` to every image; NaN for those that were skipped.

        Images with candidates have their own function, ``among(candidates)(scoring, *row)``.
        """
        shape = len(self.errors), len(self.classes)
        answers = torch.full(shape, torch.nan, dtype=torch.float64)
        skipped = dict(self.skipped)
        for image, row in enumerate(self.rows()):
            if image not in skipped:
                if self.candidates is None:
                    answers[image] = answer(*row)
                else:
                    answers[image] = among(self.candidates.of(image))(scoring, *row)
                if bool(answers[image].isnan().any()):
                    most = float(row[0].nan_to_num().max())
                    raise InputValueError(
                        f"the answer for image {image} is NaN, because its errors, the weights or "
                        f"the temperature are too large; its largest error is {most:g}."
                    )
        return answers

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield errors [P, J], timesteps [J], density [J] and active [P] of each image."""
        timesteps, density = torch.as_tensor(self.timesteps), torch.as_tensor(self.density)
        for errors, active in zip(self.errors, self.active, strict=True):
            yield torch.as_tensor(errors), timesteps, density, torch.as_tensor(active)
