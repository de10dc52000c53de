"""Candidates of each image: predictions, tables, costs and what is refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.pruners import NoPruning, StagedPruner
from tests.support.words import LABELS, WordBackend, rows

X, Y = rows(24)
K = len(LABELS)
MASK = np.random.default_rng(0).random((24, K)) < 0.4
MASK[np.arange(24), [LABELS.index(label) for label in Y]] = True
MASK[5] = np.arange(K) == 7  # decided from the start


def fitted(**options):
    options = {"calibrator": None, "random_state": 0, "verbose": 0} | options
    return DiffusionClassifier(WordBackend(), **options).fit(None, LABELS)


@pytest.fixture(scope="module")
def clf():
    return fitted()


def lists(mask):
    return [[LABELS[k] for k in np.flatnonzero(row)] for row in mask]


def test_an_image_races_its_own_classes(clf):
    """An unpruned race among candidates is the full one without the others, at their cost."""
    plain = fitted(pruner=NoPruning(16))
    rows_before = plain.backend_.n_rows
    found = plain.predict_log_proba(X, candidates=MASK)
    n_raced = np.where(MASK.sum(1) > 1, MASK.sum(1), 0)
    assert plain.backend_.n_rows - rows_before == 16 * n_raced.sum()
    everything = plain.predict_log_proba(X)
    expected = log_softmax(np.where(MASK, everything, -np.inf), axis=1)
    np.testing.assert_allclose(found[MASK], expected[MASK], atol=1e-4)
    assert (found[~MASK] == -np.inf).all()
    assert (
        log_loss(Y, np.exp(plain.predict_log_proba(X, candidates=MASK | MASK)), labels=LABELS) > 0
    )


def test_racing_among_all_classes_is_the_ordinary_race(clf):
    everyone = np.ones((24, K), bool)
    np.testing.assert_array_equal(clf.predict_proba(X, candidates=everyone), clf.predict_proba(X))


def test_lists_masks_tensors_and_frames_say_the_same(clf):
    expected = clf.predict_proba(X, candidates=MASK)
    frame = pd.DataFrame(MASK, columns=LABELS)
    for given in (lists(MASK), tuple(map(tuple, lists(MASK))), torch.tensor(MASK), frame):
        np.testing.assert_array_equal(clf.predict_proba(X, candidates=given), expected)
    labels = clf.predict(X, candidates=MASK)
    assert (labels == np.array(LABELS)[expected.argmax(1)]).all()
    assert labels[5] == LABELS[7]
    assert clf.score(X, Y, candidates=MASK) == np.mean(labels == Y)
    scores = clf.decision_function(X, candidates=MASK)
    np.testing.assert_array_equal(np.exp(scores), expected)


def test_the_table_keeps_the_candidates(clf, tmp_path):
    """Also in a file, in parts, in replays, and beside errors of all classes."""
    expected = clf.predict_proba(X, candidates=MASK)
    table = clf.errors(X, candidates=MASK)
    assert (np.isnan(table.errors).all(2) | MASK).all()
    assert table.n_evaluations[5] == 0
    table.to_parquet(tmp_path / "errors.parquet")
    full = clf.errors(X, candidates=MASK, full=True)
    assert full.is_full
    for same in (
        table,
        ErrorTable.from_parquet(tmp_path / "errors.parquet"),
        ErrorTable.concatenate([table[:7], table[7:]]),
        table.replay(clf.pruner_),
        full.replay(clf.pruner_),
        clf.errors(X, candidates=MASK, table=full),
        clf.errors(X, candidates=MASK, table=table[:9]),
    ):
        np.testing.assert_allclose(same.predict_proba(), expected, atol=1e-12)
        np.testing.assert_allclose(clf.predict_proba(same), expected, atol=1e-12)
        assert same.certificate.winner.tolist() == clf.predict(X, candidates=MASK).tolist()
        np.testing.assert_array_equal(same.candidates.mask, MASK)
    assert (clf.predict_proba(full)[~MASK] == 0).all()
    certificate = table.certificate[5]
    assert (certificate.resolved, certificate.runner_up, certificate.n_draws) == (True, None, 0)
    assert (table.class_losses().numpy()[~MASK] == np.inf).all()


def test_a_full_table_answers_for_any_candidates(clf):
    full = clf.errors(X, full=True)
    found = clf.predict_log_proba(full, candidates=MASK)
    everything = clf.predict_log_proba(full)
    expected = log_softmax(np.where(MASK, everything, -np.inf), axis=1)
    np.testing.assert_allclose(found[MASK], expected[MASK], atol=1e-9)
    with pytest.raises(
        InputValueError, match=r"lacks errors of image 0 for its candidate '.*full="
    ):
        clf.predict(clf.errors(X, candidates=MASK), candidates=np.ones((24, K), bool))


def test_a_table_answers_for_its_own_candidates():
    """Though races dropped some of them, whose errors are missing."""
    racing = fitted(pruner=StagedPruner((8, 16), (3, 1), max_draws=24))
    table = racing.errors(X, candidates=MASK)
    assert np.isnan(table.errors).any(2)[MASK].any()
    expected = racing.predict_proba(table)
    np.testing.assert_array_equal(racing.predict_proba(table, candidates=MASK), expected)
    everyone = np.ones((24, K), bool)
    plain = racing.errors(X)
    np.testing.assert_array_equal(
        racing.predict_proba(plain, candidates=everyone), racing.predict_proba(plain)
    )
    other = MASK.copy()
    other[3] = True  # the others stay as they are
    with pytest.raises(InputValueError, match="lacks errors of image 3"):
        racing.predict(table, candidates=other)


def test_all_classes_of_a_full_table_teach():
    """Whatever the candidates that it was recorded with."""
    full = fitted(pruner=NoPruning(16)).errors(X, full=True)
    taught = [
        DiffusionClassifier(
            WordBackend(),
            calibrator="temperature",
            pruner=NoPruning(16),
            random_state=0,
            verbose=0,
        ).fit(table, Y)
        for table in (full, fitted(pruner=NoPruning(16)).errors(X, full=True, candidates=MASK))
    ]
    assert np.isfinite(taught[1].temperature_)
    assert taught[1].temperature_ == taught[0].temperature_


def test_a_list_of_booleans_is_not_read_as_labels():
    clf = DiffusionClassifier(
        GaussianBackend([[-1.0], [1.0]], [[[1.0]]] * 2), random_state=0, verbose=0
    ).fit([[-1.0], [1.0]], [0, 1])
    mask = [[True, False], [False, True]]
    for given in (mask, [np.array(row) for row in mask]):
        with pytest.raises(InputValueError, match=r"candidates\[0\].* booleans.*np.array\(mask\)"):
            clf.predict([[0.0], [0.0]], candidates=given)
    assert clf.predict([[0.0], [0.0]], candidates=np.array(mask)).tolist() == [0, 1]
    backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]]] * 2)
    clf = DiffusionClassifier(backend, random_state=0, verbose=0)
    clf.fit([[-1.0], [1.0]], [False, True])
    assert clf.predict([[0.0], [0.0]], candidates=[[True], [False]]).tolist() == [True, False]


def test_tables_with_other_candidates_are_not_joined(clf):
    one = clf.errors(X[:3], candidates=MASK[:3])
    with pytest.raises(InputValueError, match="table 1 differs from the others in candidates"):
        ErrorTable.concatenate([one, clf.errors(X[3:])])
    with pytest.raises(InputValueError, match="candidates are 2 x 12, but there are 3 images"):
        dataclasses.replace(one, candidates=one.candidates[:2])
    with pytest.raises(InputValueError, match="is missing, but every prompt needs at least one"):
        dataclasses.replace(one, candidates=None)


def test_images_that_cannot_be_read_are_skipped(clf):
    bad = X.copy()
    bad[[2, 9], 0] = np.nan
    found = clf.predict(bad, candidates=MASK, on_error="skip")
    kept = np.setdiff1d(np.arange(24), [2, 9])
    assert [image for image, _ in clf.skipped_] == [2, 9]
    assert found[kept].tolist() == clf.predict(X[kept], candidates=MASK[kept]).tolist()
    table = clf.errors(bad, candidates=MASK, on_error="skip")
    assert clf.predict(table, on_error="skip").tolist() == found.tolist()


def test_errors_that_were_kept_are_not_computed_again(clf, tmp_path):
    kept = fitted(memory=tmp_path / "memory")
    expected = kept.predict_proba(X, candidates=MASK)
    before = kept.backend_.n_rows
    np.testing.assert_array_equal(kept.predict_proba(X, candidates=MASK), expected)
    assert kept.backend_.n_rows == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lists(MASK)[:5], "candidates has 5 entries, but there are 24 images"),
        ([[], *lists(MASK)[1:]], r"candidates\[0\] is empty"),
        ([*lists(MASK)[:3], ["mauve"], *lists(MASK)[4:]], r"candidates\[3\] has the label 'mauve'"),
        ([["red one", "red one"], *lists(MASK)[1:]], r"candidates\[0\] .* twice"),
        (["red one"] * 24, r"candidates\[0\]='red one' must be a list of labels"),
        ("red one", "must be a list of labels for each image"),
        (MASK[:, :3], r"mask of shape \(24, 3\)"),
        (MASK[:3], r"mask of shape \(3, 12\)"),
        (MASK & (np.arange(24) != 4)[:, None], r"candidates\[4\] is empty"),
        (7, "must be a list of labels"),
    ],
)
def test_what_makes_no_candidates_is_refused(clf, given, message):
    with pytest.raises(InputValueError, match=message):
        clf.predict(X, candidates=given)
