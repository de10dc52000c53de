"""Published experiments, ready to run: a YAML file each, and what puts our figure beside theirs."""

from .names import read_class_names, read_templates
from .prepared import Prepared, as_time
from .reading import SuiteImages, balanced, load_rows, read_suite_images
from .result import MatchingResult, SuiteResult
from .running import evaluate_suite, prepare_suite
from .suite import MATCHING, Published, Suite, load_suite, suite_names

__all__ = [
    "MATCHING",
    "MatchingResult",
    "Prepared",
    "Published",
    "Suite",
    "SuiteImages",
    "SuiteResult",
    "as_time",
    "balanced",
    "evaluate_suite",
    "load_rows",
    "load_suite",
    "prepare_suite",
    "read_class_names",
    "read_suite_images",
    "read_templates",
    "suite_names",
]
