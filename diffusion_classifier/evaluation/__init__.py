"""Answers as data: records of predictions for data frames, files and reports."""

from .predictions import FIELDS, no_prediction, predictions

__all__ = ["FIELDS", "no_prediction", "predictions"]
