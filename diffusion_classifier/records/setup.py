"""What all rows of a record share: what the errors are of, and how they become losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputValueError
from ..noise.prediction import PREDICTION_TYPES
from ..noise.schedule import NoiseSchedule
from ..pruners.base import Pruner
from ..scoring.class_losses import LOSS_NAMES, Scoring
from ..utils.provenance import check_made_by
from ..utils.validation import check_option


@dataclass(frozen=True, eq=False)
class RecordSetup:
    """What every image of an :class:`~diffusion_classifier.ErrorTable` has in common.

    Attributes
    ----------
    scoring : Scoring
        Weights, priors and the class of each prompt.
    schedule : NoiseSchedule
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}
    loss : {"l2", "l1", "huber", "vlb"}
    classes : ndarray of shape (K,)
    prompts : tuple of str of length P
    seed : int
        Key of the draws: records with one seed and sampler share their noise.
    alpha : float, default=nan
        Error probability that the pruner promised; NaN if it promised none.
    made_by : dict or None, default=None
        The network, picture size and loss; None if unknown.

    Raises
    ------
    InputValueError
        If lengths do not fit each other, or the loss or prediction type is not known.
    """

    scoring: Scoring
    schedule: NoiseSchedule
    prediction_type: str
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
                raise InputValueError(f"there are {found} {name}, but {scored} of them in scoring.")

    def check_answers(self, asked: RecordSetup, *, under_its_weights: bool) -> None:
        """Refuse a record that does not answer what a classifier asks.

        Parameters
        ----------
        asked : RecordSetup
            That of the classifier.
        under_its_weights : bool
            Whether the weights must be the classifier's: a record that was pruned holds what a
            race under its own weights left.

        Raises
        ------
        InputValueError
            If prompts, classes, the network, picture size, loss or, if asked for, weights differ.
        """
        if self.prompts != asked.prompts or not np.array_equal(self.classes, asked.classes):
            raise InputValueError(
                f"this ErrorTable holds prompts {self.prompts[:3]}..., but this classifier was "
                f"fitted with {asked.prompts[:3]}...; record errors with this classifier."
            )
        self.check_network(asked)
        if under_its_weights and not torch.equal(asked.scoring.weights, self.scoring.weights):
            raise InputValueError(
                "this ErrorTable was raced and pruned under weights other than this classifier's; "
                "replay the full table with weighting=clf.weighting_, or ask the table itself: "
                "table.log_posterior()."
            )

    def check_network(self, asked: RecordSetup) -> None:
        """Refuse errors of another network, picture size or loss, as far as they are known.

        Raises
        ------
        InputValueError
            If they differ; the message says in what.
        """
        if self.made_by is not None:
            check_made_by("the table was", self.made_by, asked.made_by or {})

    def to_json(self) -> dict[str, Any]:
        """All of it in types that JSON knows."""
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
        """The setup that :meth:`to_json` described."""
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
    """The error probability that a pruner promises; NaN if it promises none."""
    return float(getattr(pruner, "alpha", np.nan))
