"""Images of something else are rejected, by the unconditional prompt and by threshold."""

import numpy as np
import pytest
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.evaluation import RejectOption, evaluate
from diffusion_classifier.pruners import NoPruning

MEANS = np.array([[-1.0, 0], [1.0, 0], [0, 1.0]])
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))


def gaussians():
    backend = GaussianBackend(MEANS, np.eye(2), covariance_type="shared")
    return DiffusionClassifier(
        backend, weighting="likelihood", pruner=NoPruning(20), random_state=0
    )


@pytest.mark.parametrize(
    ("labels", "none"),
    [(["ant", "bee", "cat"], "none of these"), ([3, 5, 8], -1), (np.uint8([3, 5, 8]), -1)],
)
def test_answers_below_the_threshold_are_rejected(labels, none):
    option = RejectOption(gaussians(), threshold=0.6, unconditional=False).fit(MEANS, labels)
    plain = gaussians().fit(MEANS, labels)
    proba, answers = plain.predict_proba(X), plain.predict(X)
    sure = proba.max(1) >= 0.6
    assert 0 < sure.sum() < 40
    found = option.predict(X)
    assert (found[sure] == answers[sure]).all() and (found[~sure] == none).all()
    np.testing.assert_array_equal(option.predict_proba(X), proba)
    option.set_params(threshold=0.0)
    assert (option.decide(proba) == answers).all()


def test_the_unconditional_prompt_finds_colours_that_are_no_label():
    scenes = load_scenes("test", n_samples=12, random_state=5)
    labels = ["red", "green", "blue"]
    known = np.isin(scenes.color, labels)
    assert 3 <= known.sum() <= 9
    clf = DiffusionClassifier(prompts="a {} digit", pruner=NoPruning(6), random_state=0)
    option = RejectOption(clf).fit(None, labels)
    prompts = option.classifier_.prompts_
    assert prompts["none of these"] == [""] and prompts["red"] == ["a red digit"]
    y = np.where(known, scenes.color, option.none_)
    table = option.classifier_.errors(scenes.images)
    assert option.score(table, y) >= 11 / 12  # 9 at most, if none were rejected
    assert evaluate(option.classifier_, table, y).accuracy.value == option.score(table, y)
    # a threshold counts too: nothing is as sure as 1
    option.set_params(threshold=1.0)
    assert (option.predict(table) == "none of these").all()


def test_options_that_cannot_work_are_named():
    with pytest.raises(InputValueError, match=r"no unconditional prompt; use unconditional=False"):
        RejectOption(gaussians()).fit(MEANS, ["ant", "bee", "cat"])
    with pytest.raises(InputTypeError, match="estimator must be a DiffusionClassifier"):
        RejectOption(None).fit(None, ["a", "b"])
    with pytest.raises(InputValueError, match="threshold=2"):
        RejectOption(gaussians(), threshold=2).fit(MEANS, ["a", "b", "c"])
    clf = DiffusionClassifier(random_state=0)
    with pytest.raises(InputValueError, match="no image has the label 'none of these'"):
        RejectOption(clf).fit(load_scenes("test", n_samples=2).images, ["one", "two"])
    with pytest.raises(InputValueError, match="labels are booleans"):
        RejectOption(clf).fit(None, [True, False])


def test_it_is_cloned_with_its_parameters():
    option = RejectOption(gaussians(), threshold=0.3, unconditional=False)
    assert clone(option).get_params()["threshold"] == 0.3
    option.fit(MEANS, ["ant", "bee", "cat"])
    assert not hasattr(option.estimator, "classes_")  # what was given stays unfitted
