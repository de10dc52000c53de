"""Shortlists by factors and hierarchies: candidates, costs, answers and what is refused."""

import numpy as np
import pytest

from diffusion_classifier import DiffusionClassifier, ErrorTable
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.shortlist import FactoredShortlist, HierarchyShortlist, recall
from diffusion_classifier.shortlist.base import Proposal
from tests.support.words import COLOURS, DIGITS, FACTORS, LABELS, WordBackend, rows

X, Y = rows(60)
NODES = {colour: [f"{colour} {digit}" for digit in DIGITS] for colour in COLOURS}


def factored(**options):
    return FactoredShortlist(FACTORS, "{colour} {digit}", **options)


def fitted(shortlist, labels=LABELS, **options):
    options = {"random_state": 0, "verbose": 0, "calibrator": None} | options
    return DiffusionClassifier(WordBackend(), shortlist=shortlist, **options).fit(None, labels)


def test_factors_multiply():
    """The proposer's probabilities are those of the colours times those of the digits."""
    pruner = NoPruning(8)
    proposed = fitted(factored(k=3), pruner=pruner).errors(X).candidates
    colours = fitted(None, COLOURS, pruner=pruner).predict_proba(X)
    digits = fitted(None, DIGITS, pruner=pruner).predict_proba(X)
    order = [label.split() for label in LABELS]
    expected = [
        colours[:, COLOURS.index(colour)] * digits[:, DIGITS.index(digit)]
        for colour, digit in order
    ]
    np.testing.assert_allclose(np.exp(proposed.log_proba), np.transpose(expected), atol=1e-6)
    assert (proposed.mask.sum(1) == 3).all()


def test_a_hierarchy_gives_all_classes_of_its_best_nodes():
    clf = fitted(HierarchyShortlist(NODES, k=4), pruner=NoPruning(8))
    mask = clf.propose(X)
    nodes = fitted(None, COLOURS, pruner=NoPruning(8)).predict(X)
    of_node = np.array([label.split()[0] for label in LABELS])
    assert (mask == (nodes[:, None] == of_node)).all()
    wider = fitted(HierarchyShortlist(NODES, k=5), pruner=NoPruning(8)).propose(X)
    assert (wider.sum(1) == 8).all()  # two nodes
    assert (wider >= mask).all()


def test_unequal_nodes_are_compared_by_their_prompts_and_not_by_their_sizes():
    """An image that all classes explain alike keeps the prior, whatever the tree."""
    nodes = {"red": LABELS[:10], "blue": LABELS[10:]}
    clf = fitted(HierarchyShortlist(nodes, k=12), pruner=NoPruning(4))
    table = clf.errors(np.zeros((1, X.shape[1])), full=True)
    log_proba = table.candidates.log_proba[0]
    for members in (slice(0, 10), slice(10, 12)):
        assert np.ptp(log_proba[members]) < 1e-12
    race = fitted(None, ["red", "blue"], pruner=NoPruning(4), priors=[2, 10])  # blue, red
    expected = race.predict_log_proba(np.zeros((1, X.shape[1])))[0]
    np.testing.assert_allclose(log_proba[11], expected[0] - np.log(2), atol=1e-6)
    np.testing.assert_allclose(log_proba[0], expected[1] - np.log(10), atol=1e-6)


@pytest.mark.parametrize("first", [None, ["colour"]])
def test_answers_are_those_of_the_flat_race_at_a_lower_cost(first):
    flat = fitted(None, pruner=NoPruning(32))
    expected, n_flat = flat.predict(X), flat.backend_.n_rows
    clf = fitted(factored(first=first, k=4), pruner=NoPruning(32))
    assert recall(clf.propose(X), Y, clf.classes_) > 0.9
    before = clf.backend_.n_rows
    found = clf.predict(X)
    n_rows = clf.backend_.n_rows - before
    n_prompts = 3 + 4 if first else 3 + 4 + 4
    assert n_rows == 60 * 32 * n_prompts
    assert n_rows <= clf.estimate_cost(60).evaluations
    assert n_rows < n_flat
    assert np.mean(found == expected) > 0.95


def test_saved_cloned_and_kept_in_memory(tmp_path):
    for number, shortlist in enumerate((factored(k=3), HierarchyShortlist(NODES, k=4))):
        clf = fitted(shortlist, memory=tmp_path / f"memory{number}")
        expected = clf.predict_proba(X[:12])
        before = clf.backend_.n_rows
        np.testing.assert_array_equal(clf.predict_proba(X[:12]), expected)
        assert clf.backend_.n_rows == before  # those of groups are kept too
        clf.save(tmp_path / f"clf{number}")
        again = DiffusionClassifier.load(tmp_path / f"clf{number}", backend=WordBackend())
        np.testing.assert_array_equal(again.predict_proba(X[:12]), expected)
        assert again.shortlist.get_params() == shortlist.get_params()


def test_groups_without_a_class_do_not_race():
    clf = fitted(factored(k=2), labels=["red one", "red two", "blue one"])
    assert [len(groups.prompts) for groups in clf.shortlist_.groups_] == [2, 2]


def test_unreadable_images_are_skipped():
    bad = X[:5].copy()
    bad[1] = np.nan
    clf = fitted(factored(k=3))
    found = clf.predict(bad, on_error="skip")
    assert found[1] is None
    assert found[[0, 2, 3, 4]].tolist() == clf.predict(X[[0, 2, 3, 4]]).tolist()


@pytest.mark.parametrize(
    ("shortlist", "kind", "message"),
    [
        (FactoredShortlist(FACTORS, "{colour}"), InputValueError, "no slot {digit}"),
        (FactoredShortlist({}, "{colour}"), InputValueError, "factors is empty"),
        (
            FactoredShortlist(FACTORS, "{digit} {colour}"),
            InputValueError,
            "label 'blue five' is no combination",
        ),
        (factored(first=["shape"]), InputValueError, "first names 'shape'"),
        (factored(prompts={"shape": "a {}"}), InputValueError, "prompts names 'shape'"),
        (
            FactoredShortlist({"colour": "red", "digit": DIGITS}, "{colour} {digit}"),
            InputTypeError,
            "must be a list of strings",
        ),
        (HierarchyShortlist(NODES | {"x": ["red one"]}), InputValueError, "'red' and 'x'"),
        (HierarchyShortlist({"red": NODES["red"]}), InputValueError, "in none of the nodes"),
        (HierarchyShortlist(LABELS), InputValueError, "nodes=.* must be a dict"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(shortlist, kind, message):
    with pytest.raises(kind, match=message):
        fitted(shortlist)


def test_networks_that_read_no_text_are_refused():
    backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    clf = DiffusionClassifier(backend, shortlist=HierarchyShortlist({"n": ["a", "b"]}))
    with pytest.raises(InputValueError, match="reads no text"):
        clf.fit([[-1.0], [1.0]], ["a", "b"])


def far_apart(n_classes, tops):
    """Log probabilities whose last classes are all below any floor, in a known order."""
    return np.array([[0.0] * tops + list(-30.0 - np.arange(n_classes - tops))])


def test_the_order_below_the_floor_chooses_the_candidates():
    clf = fitted(factored(k=5), pruner=NoPruning(4))
    log_proba = far_apart(12, 1)[:, ::-1]  # the last class first
    found, _ = clf.shortlist_.candidates_from(Proposal(log_proba))
    assert np.flatnonzero(found.mask[0]).tolist() == [7, 8, 9, 10, 11]
    assert found.log_proba.min() == pytest.approx(np.log(1e-10), abs=1e-6)
    nodes = fitted(HierarchyShortlist(NODES, k=5), pruner=NoPruning(4)).shortlist_
    tree = np.repeat([[-50.0, 0.0, -40.0]], 4, axis=1)
    assert np.flatnonzero(nodes.candidates_from(Proposal(tree))[0].mask[0]).tolist() == [
        *range(4, 12)
    ]


def test_ties_keep_to_the_most_candidates_that_are_promised():
    """An image that says nothing makes all classes tie."""
    nothing = np.zeros((1, 12))
    for shortlist, n in ((factored(k=5), 5), (HierarchyShortlist(NODES, k=5), 8)):
        clf = fitted(shortlist, pruner=NoPruning(4))
        mask = clf.shortlist_.candidates_from(Proposal(nothing))[0].mask
        assert mask.sum() == n == clf.shortlist_.max_candidates(12)
    sure = fitted(factored(k=9), pruner=NoPruning(64), calibrator=1e-3)
    assert (sure.propose(10 * X[:4]).sum(1) == 9).all()
    n_evaluations = sure.errors(10 * X[:4]).n_evaluations
    assert (n_evaluations + 64 * (3 + 4) <= sure.estimate_cost(1).evaluations).all()


def test_a_race_of_a_single_group_is_left_out():
    labels = ["red five", "red one", "red two"]
    clf = fitted(factored(k=2), labels, pruner=NoPruning(8))
    assert [groups.prompts for groups in clf.shortlist_.groups_] == [["five", "one", "two"]]
    expected = fitted(None, ["five", "one", "two"], pruner=NoPruning(8)).predict_proba(X[:4])
    table = clf.errors(X[:4])
    np.testing.assert_allclose(np.exp(table.candidates.log_proba), expected, atol=1e-6)
    assert set(clf.predict(X[:4])) <= set(labels)
    for only in (factored(first=["colour"]), HierarchyShortlist({"red": labels, "blue": ["x"]})):
        with pytest.raises(InputValueError, match="all 3 classes are in the same group"):
            fitted(only, labels)
    with pytest.raises(InputValueError, match="first is empty"):
        fitted(factored(first=[]))


@pytest.mark.filterwarnings("ignore:the model reads alike")
@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_priors_count_once_whatever_the_prior_strength(strength, tmp_path):
    """An image that tells nothing apart keeps the priors."""
    priors = np.arange(1.0, 13.0)
    same = {"prompts": {label: f"no{k}" for k, label in enumerate(LABELS)}, "priors": priors}
    for shortlist in (
        factored(k=12, prompts={"colour": "no{}", "digit": "no{}"}, prior_strength=strength),
        HierarchyShortlist(NODES, prompts="no{}", k=12, prior_strength=strength),
    ):
        clf = fitted(shortlist, pruner=NoPruning(4), **same)
        table = clf.errors(X[:2])
        table.to_parquet(tmp_path / "errors.parquet")
        again = ErrorTable.from_parquet(tmp_path / "errors.parquet")
        for proba in (clf.predict_proba(X[:2]), table.predict_proba(), again.predict_proba()):
            np.testing.assert_allclose(proba, [priors / priors.sum()] * 2, atol=1e-5)
