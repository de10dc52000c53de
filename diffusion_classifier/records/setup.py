"""RecordSetup: what all rows of an error table share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputValueError
from ..noise.prediction import PredictionTypeName
from ..noise.process import process_of
from ..noise.schedule import NoiseSchedule
from ..pruners.base import Pruner
from ..scoring.class_losses import LOSS_NAMES, PROMPT_REDUCTIONS, Scoring
from ..scoring.natural import UNITS
from ..utils.display import short_repr
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
    prediction_type : {"epsilon", "v_prediction", "sample", "flow", "tokens", "ordered_tokens"}
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
        If lengths are inconsistent, a label occurs twice, weights or priors are not finite, or the
        loss or prediction type is not known.
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
        process_of(self.prediction_type)
        check_option("loss", self.loss, LOSS_NAMES)
        lengths = {
            "prompts": (len(self.prompts), len(self.scoring.class_of)),
            "classes": (len(self.classes), self.scoring.n_classes),
            "timesteps": (self.schedule.n_timesteps, len(self.scoring.weights)),
        }
        for name, (found, scored) in lengths.items():
            if found != scored:
                raise InputValueError(f"there are {found} {name}, but scoring has {scored}.")
        _check_scoring(self.scoring)
        if len(set(self.classes.tolist())) < len(self.classes):
            raise InputValueError("classes holds a label twice; every class needs its own label.")

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

    def difference(self, other: RecordSetup) -> str | None:
        """Return the name of the first setting that differs, or None if all are equal."""
        ours, theirs = self.to_json(), other.to_json()
        for name, value in ours.items():
            nested = isinstance(value, dict) and isinstance(theirs[name], dict)
            for key in dict.fromkeys([*value, *theirs[name]]) if nested else [None]:
                pair = (value.get(key), theirs[name].get(key)) if nested else (value, theirs[name])
                if not _equal(*pair):
                    return name if key is None else f"{name}[{key!r}]"
        return None

    def to_json(self) -> dict[str, Any]:
        """Convert the setup to types that JSON supports."""
        scoring = self.scoring
        return {
            "loss": self.loss,
            "scoring": {
                "weights": scoring.weights.tolist(),
                "log_prior": scoring.log_prior.tolist(),
                "class_of": scoring.class_of.tolist(),
                "reduction": scoring.reduction,
                "log_temperature": scoring.log_temperature,
                "unit": scoring.unit,
            },
            "schedule": {
                "alpha": self.schedule.alpha.tolist(),
                "sigma": self.schedule.sigma.tolist(),
            },
            "prediction_type": self.prediction_type,
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
                scoring.get("unit", "given"),
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


class SharedSettings:
    """Base class of records: the fields of their setup as attributes."""

    setup: RecordSetup

    @property
    def scoring(self) -> Scoring:
        """Weights, priors and prompt classes that the race used."""
        return self.setup.scoring

    @property
    def schedule(self) -> NoiseSchedule:
        """The network's noise schedule."""
        return self.setup.schedule

    @property
    def prediction_type(self) -> PredictionTypeName:
        """What the network predicts: "epsilon", "v_prediction", "sample" or "flow"."""
        return self.setup.prediction_type

    @property
    def loss(self) -> str:
        """Loss of the noise residual: "l2", "l1", "huber" or "vlb"."""
        return self.setup.loss

    @property
    def classes(self) -> NDArray[Any]:
        """Class labels, of shape (K,)."""
        return self.setup.classes

    @property
    def prompts(self) -> tuple[str, ...]:
        """The P prompts, in the order of axis 1 of ``errors``."""
        return self.setup.prompts

    @property
    def class_of(self) -> NDArray[np.int64]:
        """Index into ``classes`` of each prompt's class, of shape (P,)."""
        return self.scoring.class_of.numpy()

    @property
    def seed(self) -> int:
        """Key of the draws: tables with the same seed and sampler share their noise."""
        return self.setup.seed

    @property
    def alpha(self) -> float:
        """Bound, promised by the pruner, on the probability of dropping the best class, or NaN."""
        return self.setup.alpha

    @property
    def made_by(self) -> dict[str, Any] | None:
        """Identity of the network, image format and loss; None if unknown."""
        return self.setup.made_by


def _check_scoring(scoring: Scoring) -> None:
    """Raise unless weights and priors are finite and every class has prompts, in order."""
    check_option("reduction", scoring.reduction, PROMPT_REDUCTIONS)
    check_option("unit", scoring.unit, UNITS)
    if not scoring.n_classes or len(scoring.log_temperature) != 2:
        raise InputValueError(
            f"scoring has {scoring.n_classes} classes and {len(scoring.log_temperature)} "
            "coefficients of the temperature, but needs at least one class and two coefficients."
        )
    for name in ("weights", "log_prior", "log_temperature"):
        bad = ~torch.as_tensor(getattr(scoring, name)).isfinite()
        if bool(bad.any()):
            raise InputValueError(f"{name}[{int(bad.int().argmax())}] of scoring is not finite.")
    if not torch.equal(scoring.class_of.unique_consecutive(), torch.arange(scoring.n_classes)):
        raise InputValueError(
            "class_of of scoring must give each of the classes 0, 1, 2, ... one or more prompts, "
            f"in this order; it is {short_repr(scoring.class_of.tolist())}."
        )


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are equal; NaN equals NaN."""
    return one == other or (one != one and other != other)


def promised_alpha(pruner: Pruner) -> float:
    """Return the error probability ``alpha`` that a pruner promises; NaN if it promises none."""
    return float(getattr(pruner, "alpha", np.nan))
