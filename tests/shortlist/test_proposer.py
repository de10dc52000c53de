"""Shortlists made by any classifier: conventions of scikit-learn, probabilities, learning."""

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.errors import InputTypeError, InputValueError, OutputShapeError
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.scoring.candidates import Candidates
from diffusion_classifier.shortlist import Shortlist, recall
from diffusion_classifier.shortlist.base import learn_strength
from tests.support.words import LABELS, WordBackend, rows

X, Y = rows(36)
X_FIT, Y_FIT = rows(48, seed=1)
K = len(LABELS)


def classifier(shortlist, **options):
    options = {"random_state": 0, "verbose": 0, "calibrator": None} | options
    return DiffusionClassifier(WordBackend(), shortlist=shortlist, **options)


@pytest.fixture(scope="module")
def forest():
    return RandomForestClassifier(20, random_state=0).fit(X_FIT, Y_FIT)


def test_each_image_races_what_the_proposer_finds_most_probable(forest):
    clf = classifier(Shortlist(forest, k=3)).fit(None, LABELS)
    proposed = forest.predict_proba(X)
    mask = clf.propose(X)
    assert (mask.sum(1) == 3).all()
    for row, q in zip(mask, proposed, strict=True):
        assert q[row].min() >= q[~row].max()
    proba = clf.predict_proba(X)
    inside = (proba * mask).sum(1)
    np.testing.assert_allclose(inside, (proposed * mask).sum(1), atol=1e-6)
    np.testing.assert_allclose(proba[~mask], proposed[~mask], atol=1e-6)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert mask[np.arange(36), proba.argmax(1)].all()
    plain = classifier(None).fit(None, LABELS)
    assert clf.predict(X).tolist() == plain.predict(X, candidates=mask).tolist()
    raced, everything = clf.errors(X).n_evaluations, plain.errors(X).n_evaluations
    assert raced.mean() < 0.5 * everything.mean()


def test_tables_answer_as_images_do(forest):
    clf = classifier(Shortlist(forest, k=3, prior_strength=0.7)).fit(None, LABELS)
    expected = clf.predict_log_proba(X)
    table, full = clf.errors(X), clf.errors(X, full=True)
    assert full.is_full
    for same in (table, table.replay(clf.pruner_), full.replay(clf.pruner_)):
        np.testing.assert_allclose(clf.predict_log_proba(same), expected, atol=1e-12)
    assert clf.predict(X, candidates=[[label] for label in Y]).tolist() == Y.tolist()


def test_the_cost_is_that_of_the_candidates(forest):
    clf = classifier(Shortlist(forest, k=3), pruner=NoPruning(16)).fit(None, LABELS)
    assert clf.estimate_cost(10).evaluations == 10 * 3 * 16
    table = clf.errors(X)
    assert (table.n_evaluations == 3 * 16).all()
    assert clf.estimate_cost(40, table).evaluations == 4 * 3 * 16
    plain = classifier(None).fit(None, LABELS).errors(X)  # does not know its shortlist
    assert clf.estimate_cost(40, plain).evaluations == 40 * 3 * 16


def test_recall_counts_true_classes_on_the_shortlist(forest):
    clf = classifier(Shortlist(forest, k=3)).fit(None, LABELS)
    top3 = np.argsort(-forest.predict_proba(X), 1, kind="stable")[:, :3]
    expected = np.mean([label in np.array(LABELS)[row] for label, row in zip(Y, top3, strict=True)])
    assert recall(clf.propose(X), Y, clf.classes_) == expected
    with pytest.raises(InputValueError, match="there are 3 labels"):
        recall(clf.propose(X), Y[:3], clf.classes_)
    with pytest.raises(InputValueError, match="'mauve', which is not among"):
        recall(clf.propose(X[:1]), ["mauve"], clf.classes_)


def test_columns_of_the_proposer_may_come_in_any_order():
    class Reversed(ClassifierMixin, BaseEstimator):
        classes_ = np.array(LABELS[::-1])

        def predict_proba(self, X):
            scores = np.tile(np.arange(K, 0, -1.0), (len(X), 1))  # the last label first
            return scores / scores.sum(1, keepdims=True)

    clf = classifier(Shortlist(Reversed(), k=1)).fit(None, LABELS)
    assert set(clf.predict(X)) == {LABELS[-1]}


def test_a_proposer_may_be_fitted_along():
    shortlist = Shortlist(LogisticRegression(), k=4, prefit=False)
    clf = classifier(shortlist).fit(X_FIT, Y_FIT)
    assert not hasattr(shortlist.proposer, "classes_")
    expected = LogisticRegression().fit(X_FIT, Y_FIT).predict_proba(X)
    np.testing.assert_allclose(clf.shortlist_.proposer_.predict_proba(X), expected)
    scores = cross_val_score(classifier(shortlist), X_FIT, Y_FIT, cv=2)
    assert scores.mean() > 0.9


def test_clones_share_a_fitted_proposer(forest):
    clf = clone(classifier(Shortlist(forest, k=3)))
    assert clf.shortlist.proposer is forest
    assert cross_val_score(clf, X_FIT, Y_FIT, cv=2).mean() > 0.9
    assert clf.set_params(shortlist__k=2).shortlist.k == 2
    fitted = clf.fit(None, LABELS)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X[:5]), fitted.predict_proba(X[:5]))
    clf.set_params(shortlist=None).fit(None, LABELS)
    assert clf.shortlist_ is None
    assert clf.propose(X[:2]).all()


def test_a_diffusion_classifier_may_propose():
    coarse = DiffusionClassifier(
        WordBackend(), pruner=NoPruning(4), random_state=1, verbose=0, calibrator=None
    ).fit(None, LABELS)
    clf = classifier(Shortlist(coarse, k=2)).fit(None, LABELS)
    bad = X[:6].copy()
    bad[3] = np.nan
    found = clf.predict(bad, on_error="skip")
    assert [image for image, _ in clf.skipped_] == [3]
    assert found[[0, 1, 2, 4, 5]].tolist() == clf.predict(X[[0, 1, 2, 4, 5]]).tolist()
    assert found[3] is None
    assert clf.propose(bad, on_error="skip").sum(1).tolist() == [2, 2, 2, 0, 2, 2]


def test_nan_of_the_proposer_is_an_error_or_skips_the_image():
    class Broken(LinearDiscriminantAnalysis):
        def predict_proba(self, X):
            proba = super().predict_proba(X)
            proba[2] = np.nan
            return proba

    clf = classifier(Shortlist(Broken().fit(X_FIT, Y_FIT), k=2)).fit(None, LABELS)
    with pytest.raises(InputValueError, match=r"image 2 .* proposer returned NaN"):
        clf.predict(X[:4])
    found = clf.predict(X[:4], on_error="skip")
    assert found.tolist()[2] is None
    assert found.tolist()[3] == Y[3]


def test_the_prior_strength_is_learned_by_races(forest):
    """It is the maximum of a concave likelihood; a proposer that knows nothing gets 0."""
    clf = classifier(Shortlist(LogisticRegression(), k=4, prefit=False, prior_strength="learned"))
    clf.fit(X_FIT, Y_FIT)
    assert 0 < clf.shortlist_.prior_strength_ <= 10
    assert clf.errors(X[:3]).candidates.strength == clf.shortlist_.prior_strength_
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=400)
    q = rng.normal(size=(400, K))
    race = rng.normal(size=(400, K))
    race[np.arange(400), true] += 1
    log_q = q - np.logaddexp.reduce(q, axis=1, keepdims=True)
    everyone = np.ones((400, K), bool)
    even = np.zeros(K)
    assert learn_strength(race, Candidates(everyone, log_q), true, even) < 0.1
    q = 2 * rng.normal(size=(400, K))
    true = (q + rng.gumbel(size=(400, K))).argmax(1)  # q is exactly right, the race says nothing
    log_q = q - np.logaddexp.reduce(q, axis=1, keepdims=True)
    found = learn_strength(np.zeros((400, K)), Candidates(everyone, log_q), true, even)
    assert found == pytest.approx(1, abs=0.15)
    # The same with other priors, which both the race and the proposer contain.
    log_prior = np.log(np.arange(1, K + 1) / np.arange(1, K + 1).sum())
    true = (q + log_prior + rng.gumbel(size=(400, K))).argmax(1)
    joint = q + log_prior
    log_q = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    race = np.tile(log_prior, (400, 1))
    both = Candidates(everyone, log_q, has_prior=True)
    assert learn_strength(race, both, true, log_prior) == pytest.approx(1, abs=0.15)


def test_saved_without_the_proposer(forest, tmp_path):
    backend = WordBackend()
    clf = classifier(Shortlist(forest, k=3, prior_strength=0.5)).fit(None, LABELS)
    expected = clf.predict_proba(X)
    clf.save(tmp_path / "clf")
    with pytest.raises(InputValueError, match=r"load\(folder, proposer=\.\.\.\)"):
        DiffusionClassifier.load(tmp_path / "clf", backend=backend)
    other = RandomForestClassifier(5).fit(X_FIT, np.resize(["a", "b"], len(X_FIT)))
    with pytest.raises(InputValueError, match="the proposer lacks 'blue five' and has 'a'"):
        DiffusionClassifier.load(tmp_path / "clf", backend=backend, proposer=other)
    again = DiffusionClassifier.load(tmp_path / "clf", backend=backend, proposer=forest)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    assert again.shortlist.proposer is forest
    classifier(None).fit(None, LABELS).save(tmp_path / "plain")
    with pytest.raises(InputValueError, match="saved without a Shortlist"):
        DiffusionClassifier.load(tmp_path / "plain", backend=backend, proposer=forest)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Shortlist(LogisticRegression()), InputValueError, "has no classes_"),
        (lambda: Shortlist(LogisticRegression), InputTypeError, "instance, not the class"),
        (lambda: Shortlist("clip"), InputTypeError, "must be a classifier with predict_proba"),
        (lambda: Shortlist(LogisticRegression(), prefit=False), InputValueError, "fit.X, y"),
        (
            lambda: Shortlist(LogisticRegression().fit(X_FIT, Y_FIT == "red one")),
            InputValueError,
            "proposer has 2 classes and the classifier 12",
        ),
        (lambda: Shortlist(LogisticRegression(), k=0), InputValueError, "k=0 must be"),
        (
            lambda: Shortlist(
                LogisticRegression().fit(X_FIT, Y_FIT), prior_strength="learned"
            ),
            InputValueError,
            "learns from labelled images",
        ),
        (lambda: LogisticRegression().fit(X_FIT, Y_FIT), InputValueError, "BaseShortlist"),
    ],
)  # fmt: skip
def test_what_cannot_propose_is_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        classifier(make()).fit(None, LABELS)


def test_the_order_below_the_floor_chooses_the_candidates():
    class Sure(ClassifierMixin, BaseEstimator):
        classes_ = np.array(LABELS)

        def predict_proba(self, X):
            return np.tile(10.0 ** np.arange(-K * 20 + 20, 1, 20), (len(X), 1))  # the last is 1

    mask = classifier(Shortlist(Sure(), k=3)).fit(None, LABELS).propose(X[:2])
    assert [np.flatnonzero(row).tolist() for row in mask] == [[9, 10, 11]] * 2


@pytest.mark.parametrize("n_more", [-1, 1])
def test_a_proposer_returns_one_row_per_image(n_more):
    class Miscounting(ClassifierMixin, BaseEstimator):
        classes_ = np.array(LABELS)

        def predict_proba(self, X):
            return np.full((len(X) + n_more, K), 1 / K)

    clf = classifier(Shortlist(Miscounting(), k=3)).fit(None, LABELS)
    message = rf"of shape \({4 + n_more}, 12\); expected \(4, 12\)"
    for ask in (clf.predict, clf.propose, clf.errors):
        with pytest.raises(OutputShapeError, match=message):
            ask(X[:4])
    with pytest.raises(OutputShapeError, match=message):
        clf.predict(X[:4], on_error="skip")


def test_an_ordinary_proposer_is_asked_only_about_what_can_be_read(tmp_path):
    """It would refuse rows with NaN, and know nothing of damaged files."""
    clf = classifier(Shortlist(LogisticRegression().fit(X_FIT, Y_FIT), k=3)).fit(None, LABELS)
    bad = X[:6].copy()
    bad[[1, 4], 0] = np.nan
    kept = [0, 2, 3, 5]
    found = clf.predict(bad, on_error="skip")
    assert [image for image, _ in clf.skipped_] == [1, 4]
    assert found[[1, 4]].tolist() == [None, None]
    assert found[kept].tolist() == clf.predict(X[kept]).tolist()
    assert clf.propose(bad, on_error="skip").sum(1).tolist() == [3, 0, 3, 3, 0, 3]
    with pytest.raises(InputValueError, match="no image can be read"):
        clf.errors(bad[[1, 4]], on_error="skip")
    with pytest.raises(ValueError, match="contains NaN"):
        clf.predict(bad)
    narrow = LogisticRegression().fit(X_FIT[:, :3], Y_FIT)
    clf = classifier(Shortlist(narrow, k=3)).fit(None, LABELS)
    with pytest.raises(InputValueError, match="LogisticRegression refuses X: X has 16 features"):
        clf.predict(X[:2])

    class Named(ClassifierMixin, BaseEstimator):
        classes_ = np.array(["blue", "red"])

        def predict_proba(self, X):
            assert all(str(path).endswith("good.png") for path in X)
            return np.full((len(X), 2), 0.5)

    Image.new("RGB", (32, 32), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    clf = DiffusionClassifier(
        pruner=NoPruning(2), shortlist=Shortlist(Named(), k=1), random_state=0, verbose=0
    ).fit(None, ["blue", "red"])
    for pictures in (tmp_path, [tmp_path / "bad.png", tmp_path / "good.png"]):
        assert clf.predict(pictures, on_error="skip").tolist() == [None, "blue"]
        assert "bad.png" in clf.skipped_[0][1]
