"""Records of predictions agree with the classifier's methods and the table's certificate."""

import json

import numpy as np
import pandas as pd
import pytest

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.evaluation import FIELDS, predictions
from diffusion_classifier.pruners import NoPruning

MEANS = np.array([[-1.5, 0], [1.5, 0], [0, 1.5]])
X = np.random.default_rng(0).normal(size=(9, 2)) * 2


@pytest.fixture(scope="module", params=[["ant", "bee", "cat"], [3, 5, 8]], ids=["names", "numbers"])
def clf(request):
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    clf = DiffusionClassifier(backend, weighting="likelihood", random_state=0)
    return clf.fit(MEANS, request.param)


def test_records_are_the_answers_of_the_classifier(clf):
    records = predictions(clf, X, top=2)
    table, proba = clf.errors(X), clf.predict_proba(X)
    assert all(tuple(record) == FIELDS for record in records)
    assert [record["label"] for record in records] == clf.predict(X).tolist()
    assert [record["probability"] for record in records] == proba.max(1).tolist()
    order = np.argsort(-proba, kind="stable")[:, :2]
    assert [record["labels"] for record in records] == clf.classes_[order].tolist()
    assert [record["n_evaluations"] for record in records] == table.n_evaluations.tolist()
    for name in ("resolved", "runner_up", "margin", "standard_error", "n_draws"):
        assert [record[name] for record in records] == table.certificate[name].tolist()
    assert predictions(clf, table, top=2) == records


def test_records_are_read_by_json_and_pandas(clf):
    records = predictions(clf, X)
    assert json.loads(json.dumps(records)) == records
    frame = pd.DataFrame(records)
    assert frame["label"].tolist() == clf.predict(X).tolist()
    assert len(records[0]["labels"]) == 3  # no more than there are classes


def test_a_skipped_row_has_its_reason_only(clf):
    rows = X.copy()
    rows[4, 0] = np.nan
    records = predictions(clf, rows, on_error="skip")
    assert "4" in records[4]["error"]
    assert {name: records[4][name] for name in FIELDS[:-1]} == dict.fromkeys(FIELDS[:-1])
    assert [records[i] for i in (0, 8)] == [predictions(clf, X)[i] for i in (0, 8)]
    with pytest.raises(ValueError, match="NaN"):
        predictions(clf, rows)


def test_labels_of_any_dtype_and_a_single_round_are_read_by_json():
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0)
    clf.fit(MEANS, pd.Series(["ant", "bee", "cat"], dtype=object))
    (record,) = predictions(clf, X[:1])
    assert record["label"] in ("ant", "bee", "cat") and record["standard_error"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_if_all_are_skipped_each_has_its_own_reason(clf):
    records = predictions(clf, np.full((3, 2), np.nan), on_error="skip")
    assert [f"image {i}" in record["error"] for i, record in enumerate(records)] == [True] * 3
    assert all(record["label"] is None for record in records)


def test_bad_arguments_are_named(clf):
    with pytest.raises(InputTypeError, match="clf must be a DiffusionClassifier"):
        predictions(object(), X)
    with pytest.raises(InputValueError, match="top"):
        predictions(clf, X, top=0)
