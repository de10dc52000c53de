"""RecordSetup: what all rows of an error table share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputValueError
from ..noise.prediction import PREDICTION_TYPES, PredictionTypeName
from ..noise.schedule import NoiseSchedule
from ..pruners.base import Pruner
from ..scoring.class_losses import LOSS_NAMES, Scoring
from ..utils.provenance import check_made_by
from ..utils.validation import check_option


@dataclass(frozen=True, eq=False)
class RecordSetup:
    """Settings common to all images of an :class:`~diffusion_classifier.ErrorTable`.

    Attributes
    ----------
    scoring : Scoring
        Turns errors into class losses: weights, priors and the class of each prompt.
    schedule : NoiseSchedule
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}
    loss : {"l2", "l1", "huber", "vlb"}
    classes : ndarray of shape (K,)
    prompts : tuple of str of length P
    seed : int
        Key of the draws: records with the same seed and sampler share their noise.
    alpha : float, default=nan
        Asymptotic bound, promised by the pruner, on the probability of dropping the class that
        would win with infinitely many draws; NaN if none.
    made_by : dict or None, default=None
        Identity of the network, image format and loss; None if unknown.

    Raises
    ------
    InputValueError
        If lengths are inconsistent, or the loss or prediction type is not known.
    """

    scoring: Scoring
    schedule: NoiseSchedule
    prediction_type: PredictionTypeName
    loss: str
    classes: NDArray[Any]
    prompts: tuple[str, ...]
    seed: int
    alpha: float = np.nan
    made_by: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_option("prediction_type", self.prediction_type, PREDICTION_TYPES)
        check_option("loss", self.loss, LOSS_NAMES)
        lengths = {
            "prompts": (len(self.prompts), len(self.scoring.class_of)),
            "classes": (len(self.classes), self.scoring.n_classes),
            "timesteps": (self.schedule.n_timesteps, len(self.scoring.weights)),
        }
        for name, (found, scored) in lengths.items():
            if found != scored:
                raise InputValueError(f"there are {found} {name}, but scoring has {scored}.")

    def check_answers(self, asked: RecordSetup, *, under_its_weights: bool) -> None:
        """Raise unless a classifier can predict from this record.

        Parameters
        ----------
        asked : RecordSetup
            The classifier's setup.
        under_its_weights : bool
            Whether the weights must equal the classifier's. They must if the record was pruned,
            because the weights decided which errors it holds.

        Raises
        ------
        InputValueError
            If prompts, classes, the network, the image format, the loss or (with
            ``under_its_weights``) the weights differ.
        """
        if self.prompts != asked.prompts or not np.array_equal(self.classes, asked.classes):
            raise InputValueError(
                f"this ErrorTable holds prompts {self.prompts[:3]}..., but this classifier was "
                f"fitted with {asked.prompts[:3]}...; record errors with this classifier."
            )
        self.check_network(asked)
        if under_its_weights and not torch.equal(asked.scoring.weights, self.scoring.weights):
            raise InputValueError(
                "this ErrorTable was pruned under weights other than this classifier's; replay the "
                "full table with weighting=clf.weighting_, or use the table's own posterior, "
                "table.log_posterior()."
            )

    def check_network(self, asked: RecordSetup) -> None:
        """Raise if the errors came from another network, image format or loss.

        A record that does not know its network is accepted.

        Raises
        ------
        InputValueError
            If they differ; the message lists the differences.
        """
        if self.made_by is not None:
            check_made_by("the table was", self.made_by, asked.made_by or {})

    def to_json(self) -> dict[str, Any]:
        """Convert the setup to types that JSON supports."""
        scoring = self.scoring
        return {
            "scoring": {
                "weights": scoring.weights.tolist(),
                "log_prior": scoring.log_prior.tolist(),
                "class_of": scoring.class_of.tolist(),
                "reduction": scoring.reduction,
                "log_temperature": scoring.log_temperature,
            },
            "schedule": {
                "alpha": self.schedule.alpha.tolist(),
                "sigma": self.schedule.sigma.tolist(),
            },
            "prediction_type": self.prediction_type,
            "loss": self.loss,
            "classes": self.classes.tolist(),
            "classes_dtype": self.classes.dtype.str,
            "prompts": self.prompts,
            "seed": self.seed,
            "alpha": self.alpha,
            "made_by": self.made_by,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild the setup from the output of :meth:`to_json`."""
        scoring, schedule = values["scoring"], values["schedule"]
        return cls(
            scoring=Scoring(
                torch.tensor(scoring["weights"], dtype=torch.float64),
                torch.tensor(scoring["log_prior"], dtype=torch.float64),
                torch.tensor(scoring["class_of"], dtype=torch.int64),
                scoring["reduction"],
                tuple(scoring["log_temperature"]),
            ),
            schedule=NoiseSchedule(schedule["alpha"], schedule["sigma"]),
            prediction_type=values["prediction_type"],
            loss=values["loss"],
            classes=np.array(values["classes"], dtype=values["classes_dtype"]),
            prompts=tuple(values["prompts"]),
            seed=values["seed"],
            alpha=values["alpha"],
            made_by=values["made_by"],
        )


def promised_alpha(pruner: Pruner) -> float:
    """Return the error probability ``alpha`` that a pruner promises; NaN if it promises none."""
    return float(getattr(pruner, "alpha", np.nan))
