"""What is uploaded of a fitted classifier: the files that ``save`` writes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.utils.validation import check_is_fitted

from ..classifier import DiffusionClassifier
from ..errors import InputTypeError
from ..utils.display import short_repr
from .network import FILES, Network, network_of


def check_classifier(clf: object) -> None:
    """Raise unless it is a fitted classifier."""
    if not isinstance(clf, DiffusionClassifier):
        found = getattr(clf, "best_estimator_", None)
        hint = "best_estimator_" if isinstance(found, DiffusionClassifier) else "the classifier"
        raise InputTypeError(
            f"clf={short_repr(clf)} is not a DiffusionClassifier; pass {hint} alone."
        )
    check_is_fitted(clf)


def saved_files(clf: DiffusionClassifier) -> tuple[dict[str, bytes], Network]:
    """Return the files that ``save`` writes, and where they get the network from."""
    check_classifier(clf)
    with TemporaryDirectory() as folder:
        clf.save(folder)
        contents = {name: (Path(folder) / name).read_bytes() for name in FILES}
        return contents, network_of(Path(folder))
