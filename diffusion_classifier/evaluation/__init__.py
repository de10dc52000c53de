"""Answers as data: records of predictions for data frames, files and reports; figures of quality.

``predictions`` returns one record per image, ``evaluate`` measures the answers for labelled images,
``compare`` says whether one classifier is better than another on the same images, and
``RejectOption`` adds the answer "none of these".
"""

from ..utils.intervals import Estimate, bootstrap, newcombe, wilson
from .comparison import Comparison, compare
from .evaluation import Evaluation
from .measuring import evaluate
from .metrics import calibration_error, count_answers, image_scores
from .predictions import FIELDS, as_frame, no_prediction, predictions
from .rejection import RejectOption

__all__ = [
    "FIELDS",
    "Comparison",
    "Estimate",
    "Evaluation",
    "RejectOption",
    "as_frame",
    "bootstrap",
    "calibration_error",
    "compare",
    "count_answers",
    "evaluate",
    "image_scores",
    "newcombe",
    "no_prediction",
    "predictions",
    "wilson",
]
