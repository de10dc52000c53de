"""What a classifier learned about its temperature, apart from the unit of its losses.

A model that teaches itself raises the natural temperature of its weights by a factor. Under other
weights the natural temperature is another one; the factor stays.
"""

from __future__ import annotations

import math

import torch

from ..noise.schedule import NoiseSchedule
from .class_losses import Scoring
from .natural import natural_temperature
from .weighting import UniformWeighting

_ROUNDING = 1e-9


def learned_part(scoring: Scoring, schedule: NoiseSchedule, loss: str) -> float:
    """Return by how much the log temperature exceeds the natural one; 0 if nothing was learned.

    Fitted weights have the natural temperature of uniform ones, and a scoring does not say whether
    its weights were fitted: a temperature that is natural for either has learned nothing.
    """
    level = scoring.log_temperature[0]
    if scoring.unit == "nats":
        return level
    either = (scoring.weights, torch.ones_like(scoring.weights))
    parts = [
        level - math.log(natural_temperature(UniformWeighting(), weights, schedule, loss))
        for weights in either
    ]
    return 0.0 if min(map(abs, parts)) < _ROUNDING else max(parts[0], 0.0)
