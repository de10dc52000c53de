"""Evaluations agree with scikit-learn's metrics, and survive JSON; comparisons are paired."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.errors import AllSkippedError, InputTypeError, InputValueError
from diffusion_classifier.evaluation import (
    FIELDS,
    Evaluation,
    as_frame,
    bootstrap,
    compare,
    evaluate,
    newcombe,
    predictions,
    wilson,
)

MEANS = np.array([[-1.0, 0], [1.0, 0], [0, 1.0]])
NAMES = ["ant", "bee", "cat"]
RNG = np.random.default_rng(0)
Y = RNG.integers(3, size=60)
X = MEANS[Y] + RNG.normal(size=(60, 2))
LABELS = np.array(NAMES)[Y]


@pytest.fixture(scope="module")
def clf():
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    return DiffusionClassifier(backend, weighting="likelihood", random_state=0).fit(MEANS, NAMES)


@pytest.fixture(scope="module")
def found(clf):
    return evaluate(clf, X, LABELS, top=2)


def test_figures_are_those_of_scikit_learn(clf, found):
    table = clf.errors(X)
    proba, answers = clf.predict_proba(table), clf.predict(table)
    assert found.n == 60 and found.n - found.right.sum() > 0
    assert found.accuracy.value == metrics.accuracy_score(LABELS, answers)
    top = metrics.top_k_accuracy_score(LABELS, proba, k=2, labels=NAMES)
    assert found.top_accuracy.value == pytest.approx(top)
    assert found.log_loss.value == pytest.approx(metrics.log_loss(LABELS, proba))
    hot = np.eye(3)[Y]
    assert found.brier.value == pytest.approx(((proba - hot) ** 2).sum(1).mean())
    expected = metrics.confusion_matrix(LABELS, answers, labels=NAMES)
    np.testing.assert_array_equal(found.confusion, expected)
    precision, recall, _, support = metrics.precision_recall_fscore_support(LABELS, answers)
    assert [row["precision"].value for row in found.per_class] == pytest.approx(precision)
    assert [row["recall"].value for row in found.per_class] == pytest.approx(recall)
    assert [row["support"] for row in found.per_class] == support.tolist()
    assert found.evaluations.value == table.n_evaluations.mean()
    assert found.resolved.value == table.certificate.resolved.mean()
    assert found.seconds_per_image > 0


def test_the_calibration_error_has_no_interval(clf, found):
    table = clf.errors(X)
    sure = clf.predict_proba(table).max(1)
    right = clf.predict(table) == LABELS
    inside = [(sure >= b / 15) & (sure < (b + 1) / 15) for b in range(15)]
    expected = sum(abs(right[rows].sum() - sure[rows].sum()) for rows in inside) / 60
    assert found.calibration_error == pytest.approx(expected)
    assert found.metrics()["calibration_error"] == found.calibration_error
    assert f"calibration error      {expected:.3f} (too high for few images)" in found.summary()


def test_time_with_a_memory_is_unknown(clf, tmp_path):
    # looked up, errors take no time: 60 images a second time would seem to be free
    kept = clone(clf).set_params(memory=tmp_path).fit(MEANS, NAMES)
    first, again = (evaluate(kept, X, LABELS) for _ in range(2))
    assert first.seconds is None and again.seconds is None
    assert again.records == first.records and again.seconds_per_image is None
    assert "seconds" not in again.summary() and again.metrics()["seconds_per_image"] is None
    timed = evaluate(clf, X, LABELS)
    result = compare(timed, again)
    assert result.seconds_ratio is None and "seconds" not in result.summary()
    assert result.to_dict()["seconds_per_image_b"] is None
    assert Evaluation.concatenate([timed, again]).seconds is None


def test_wilson_is_that_of_scipy_and_stays_a_share():
    for right, n in [(0, 5), (5, 5), (57, 60), (1, 3)]:
        low, high = binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right, n) == pytest.approx((right / n, low, high), abs=1e-12)


def test_the_bootstrap_is_seeded_and_resamples_whole_clusters():
    values = np.repeat(np.random.default_rng(1).normal(size=40), 5)
    single, whole = (
        bootstrap(np.mean, values),
        bootstrap(np.mean, values, clusters=np.arange(200) // 5),
    )
    assert single == bootstrap(np.mean, values)
    # five equal rows are worth one: the interval is wider by the square root of 5
    assert (whole.high - whole.low) / (single.high - single.low) == pytest.approx(5**0.5, rel=0.15)


def test_an_evaluation_is_read_again_from_json(found):
    text = json.dumps(found.to_dict(), allow_nan=False)
    again = Evaluation.from_dict(json.loads(text))
    assert again.metrics() == found.metrics() and again.records == found.records
    assert json.dumps(again.to_dict(), allow_nan=False) == text
    assert found.settings["weighting"] == "likelihood" and found.settings["seed"] >= 0
    with pytest.raises(InputValueError, match="no evaluation"):
        Evaluation.from_dict({"format": "other"})
    damaged = json.loads(text)
    del damaged["images"][3]["rank"]
    with pytest.raises(InputValueError, match=r"images\[3\] has no 'rank'"):
        Evaluation.from_dict(damaged)


def test_an_incomplete_evaluation_names_what_is_missing(found):
    text = json.dumps(found.to_dict())

    def read(change):
        damaged = json.loads(text)
        change(damaged["images"][3])
        return Evaluation.from_dict(damaged)

    for name in ("image", "true", *FIELDS, "rank", "log_loss", "brier"):
        with pytest.raises(InputValueError, match=rf"images\[3\] has no '{name}'"):
            read(lambda record, name=name: record.pop(name))
    for name in ("true", "label"):
        with pytest.raises(InputValueError, match=rf"images\[3\] has {name}='zebra', .*'bee'"):
            read(lambda record, name=name: record.update({name: "zebra"}))
    with pytest.raises(InputValueError, match=r"images\[3\] has n_evaluations=None"):
        read(lambda record: record.update(n_evaluations=None))


def test_infinite_figures_are_written_as_null_and_read_again(found):
    records = [dict(record) for record in found.records]
    records[2]["log_loss"] = np.inf  # the answer gave the true class no probability at all
    records[4]["n_evaluations"] = 0
    settings = {**found.settings, "priors": [np.inf, 1.0]}
    made = replace(found, records=records, settings=settings)
    text = json.dumps(made.to_dict(), allow_nan=False)
    values = json.loads(text)
    assert values["images"][2]["log_loss"] is None and values["settings"]["priors"] == [None, 1]
    assert values["metrics"]["log_loss"][0] is None and values["metrics"]["accuracy"][0] > 0.5
    again = Evaluation.from_dict(values)
    assert again.records[2]["log_loss"] == np.inf and again.records == made.records
    result = compare(made, again)  # inf - inf
    assert np.isnan(result.log_loss.value)
    free = with_ranks(found, [1] * 60, rows=0)
    ratio = compare(free, replace(found, seconds=2.0))
    assert ratio.evaluations_ratio.value == np.inf
    timeless = compare(replace(free, seconds=0.0), found)
    assert timeless.seconds_ratio is None
    for one in (result, ratio, compare(free, free), timeless):
        plain = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert "b - a" in one.summary()
    assert plain["evaluations_ratio"] == [None] * 3


def test_parts_of_different_classifiers_are_not_joined(clf, found):
    others = {
        r"top=3, but parts\[0\] 2": replace(found, top=3),
        r"network\['resize'\]='pad'": replace(found, network={**found.network, "resize": "pad"}),
        r"network\['revision'\]='x', but parts\[0\] None": replace(
            found, network={**found.network, "revision": "x"}
        ),
        r"settings\['weighting'\]='uniform', but parts\[0\] 'likelihood'": replace(
            found, settings={**found.settings, "weighting": "uniform"}
        ),
        r"settings\['seed'\]": evaluate(
            clone(clf).set_params(random_state=1).fit(MEANS, NAMES), X[:2], LABELS[:2], top=2
        ),
        r"classes=\['ant'\]": replace(found, classes=["ant"]),
    }
    for message, other in others.items():
        with pytest.raises(InputValueError, match=rf"parts\[1\] has {message}"):
            Evaluation.concatenate([found, other])
    # what changes no answer may differ: shards run on different machines
    settings = {**found.settings, "device": "cuda", "batch_size": 64}
    assert Evaluation.concatenate([found, replace(found, settings=settings)]).n == 120


def test_parts_add_up_to_the_whole(clf, found):
    table = clf.errors(X)
    parts = [
        evaluate(clf, table[rows], LABELS[rows], top=2, names=np.arange(60)[rows].tolist())
        for rows in (slice(0, 25), slice(25, 60))
    ]
    whole = Evaluation.concatenate(parts)
    assert whole.records == found.records
    assert whole.races.keys() == found.races.keys() == set(found.wrong[:24])


def test_skipped_images_count_in_no_figure(clf, found):
    rows = X.copy()
    rows[[4, 9]] = np.nan
    partly = evaluate(clf, rows, LABELS, top=2, on_error="skip")
    assert (partly.n, partly.n_skipped) == (58, 2)
    kept = np.delete(np.arange(60), [4, 9])
    assert partly.accuracy.value == found.right[kept].mean()
    frame = as_frame(partly.records)
    assert isinstance(frame, pd.DataFrame) and str(frame["n_evaluations"].dtype) == "Int64"
    assert frame["n_evaluations"].isna().sum() == 2
    assert as_frame(predictions(clf, X))["label"].tolist() == clf.predict(X).tolist()
    with pytest.raises(AllSkippedError):
        evaluate(clf, np.full((2, 2), np.nan), LABELS[:2], on_error="skip")


def test_labels_that_do_not_fit_are_named(clf):
    with pytest.raises(InputValueError, match=r"y\[1\]='dog' is no class"):
        evaluate(clf, X[:2], ["ant", "dog"])
    with pytest.raises(InputValueError, match="y holds 3 labels, but X 2 images"):
        evaluate(clf, X[:2], ["ant", "bee", "cat"])
    with pytest.raises(InputValueError, match="names holds 1 names"):
        evaluate(clf, X[:2], ["ant", "bee"], names=["a"])


def with_ranks(found, ranks, rows=10):
    """An evaluation with chosen right and wrong answers."""
    records = [
        {**record, "rank": rank, "n_evaluations": rows}
        for record, rank in zip(found.records, ranks, strict=True)
    ]
    return Evaluation(records, found.classes, found.settings, found.network, top=2)


def test_comparisons_are_paired(found):
    # a alone is right 2 times, b alone 9 times, both 40, none 9
    a = with_ranks(found, [1] * 2 + [2] * 9 + [1] * 40 + [2] * 9, rows=20)
    b = with_ranks(found, [2] * 2 + [1] * 9 + [1] * 40 + [2] * 9, rows=15)
    result = compare(a, b)
    assert (result.n, result.n_only_a, result.n_only_b) == (60, 2, 9)
    assert result.p_value == pytest.approx(2 * sum([1, 11, 55]) / 2**11)
    assert result.accuracy.value == pytest.approx(7 / 60)
    assert result.accuracy == newcombe(40, 2, 9, 9)
    # close to the normal interval of a mean of -1, 0 and 1, from its variance
    half = 1.96 * np.sqrt((11 / 60 - (7 / 60) ** 2) / 60)
    assert result.accuracy.low == pytest.approx(7 / 60 - half, abs=0.02)
    assert result.accuracy.high == pytest.approx(7 / 60 + half, abs=0.02)
    assert tuple(result.evaluations) == (-5, -5, -5)
    assert result.evaluations_ratio.value == 0.75
    assert json.loads(json.dumps(result.to_dict()))["p_value"] == result.p_value
    assert "McNemar p = 0.0654" in result.summary()


def test_without_disagreement_the_interval_still_has_a_width(found):
    result = compare(found, found)
    assert result.p_value == 1 and result.n_same == 60
    right = int(found.right.sum())
    assert result.accuracy == newcombe(right, 0, 0, 60 - right)
    assert -result.accuracy.low == pytest.approx(result.accuracy.high)
    assert 1.96 / 60 < result.accuracy.high < 0.1


def test_with_full_disagreement_the_interval_still_has_a_width(found):
    # b alone is right on every image: Wilson's arm of 60 out of 60, from both accuracies
    result = compare(with_ranks(found, [2] * 60), with_ranks(found, [1] * 60))
    z = 1.959964
    assert (result.accuracy.value, result.accuracy.high) == (1, 1)
    assert result.accuracy.low == pytest.approx(1 - 2**0.5 * z**2 / (60 + z**2))


def test_the_interval_of_paired_shares_is_newcombes():
    # published: M. W. Fagerland, S. Lydersen and P. Laake, "Recommended tests and confidence
    # intervals for paired binomial proportions", 2014: airway hyper-responsiveness of 21 children
    assert newcombe(1, 7, 1, 12) == pytest.approx((-6 / 21, -0.507, -0.026), abs=5e-4)
    # by hand: both right on all of 54, so that one arm is Wilson's, z^2 / (n + z^2), the other 0
    arm = 1.959964**2 / (54 + 1.959964**2)
    assert newcombe(54, 0, 0, 0) == pytest.approx((0, -arm, arm))
    assert newcombe(0, 0, 0, 0)[1:] == (-1, 1)
    for counts in [(36, 2, 12, 0), (20, 5, 3, 9), (3, 9, 9, 3), (0, 0, 7, 4)]:
        assert newcombe(*counts)[0] == -newcombe(counts[0], *counts[2:0:-1], counts[3])[0]
        assert -1 <= newcombe(*counts).low < newcombe(*counts).high <= 1


def test_the_interval_of_paired_shares_holds_the_truth():
    rng = np.random.default_rng(0)
    held = []
    for chances in rng.dirichlet(np.ones(4), size=3000):
        _, low, high = newcombe(*rng.multinomial(60, chances).tolist())
        held.append(low <= chances[2] - chances[1] <= high)
    assert 0.94 < np.mean(held) < 0.97  # standard error 0.004


def test_images_are_paired_by_name(clf, found):
    order = np.arange(60)[::-1]
    turned = evaluate(clf, X[order], LABELS[order], names=order.tolist(), top=2)
    assert compare(found, turned).n_same == 60
    with pytest.raises(InputValueError, match="image 5 is not in b"):
        compare(found, evaluate(clf, X[:5], LABELS[:5]))
    with pytest.raises(InputValueError, match="has the label"):
        compare(found, evaluate(clf, X, np.roll(LABELS, 1)))
    with pytest.raises(InputTypeError, match="a is of type dict"):
        compare({}, found)
    twice = evaluate(clf, X[:2], LABELS[:2], names=["p", "p"])
    with pytest.raises(InputValueError, match="two images named 'p'"):
        compare(twice, twice)
