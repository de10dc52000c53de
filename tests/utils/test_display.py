"""How the classifier looks: short as text, documented as HTML."""

import html
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import (
    DiffusersBackend,
    FunctionBackend,
    GaussianBackend,
    GaussianMixtureBackend,
    load_embedded,
)
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import FixedDraws
from diffusion_classifier.scoring import (
    CALIBRATORS,
    WEIGHTINGS,
)
from diffusion_classifier.strategies import PRUNERS, SAMPLERS
from tests.support.pipelines import saved, tiny_sd


def rows(estimator):
    """(name, documentation or None) of every row of the tables in the HTML representation."""
    cells = re.findall(r'<td class="param">(.*?)</td>', estimator._repr_html_(), re.DOTALL)
    found = []
    for cell in cells:
        name = re.sub(r"<span.*</span>|<[^>]*>", "", cell, flags=re.DOTALL).strip()
        text = re.search(r'class="param-doc-description"[^>]*>(.*?)</span>', cell, re.DOTALL)
        text = text and html.unescape(re.sub(r"<br>|\s+", " ", text[1])).strip()
        found.append((name, text))
    return found


def test_the_html_shows_every_parameter_with_its_documentation():
    shown = dict(rows(DiffusionClassifier()))
    assert set(shown) == set(DiffusionClassifier().get_params(deep=False))
    assert all(text.startswith(f"{name}: ") for name, text in shown.items())
    assert "Rows per network call" in shown["batch_size"]
    assert "{'crop', 'pad', 'squash'}" in shown["resize"].replace('"', "'")


def test_the_parameters_of_strategies_are_listed_too():
    shown = {name for name, _ in rows(DiffusionClassifier(pruner=StagedPruner()))}
    assert {"pruner__n_draws", "pruner__keep", "pruner__max_draws"} <= shown
    assert "StagedPruner(" in DiffusionClassifier(pruner=StagedPruner(keep=(9, 2)))._repr_html_()
    in_a_pipeline = dict(rows(make_pipeline(FunctionTransformer(), DiffusionClassifier())))
    assert "Rows per network call" in in_a_pipeline["batch_size"]


def test_fitted_attributes_are_documented():
    clf = DiffusionClassifier(GaussianBackend(), pruner=NoPruning(2), calibrator="temperature")
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    shown = rows(clf.fit(X, np.arange(20) % 2))
    names = {name for name, _ in shown}
    if "classes_" in names:  # scikit-learn 1.8 shows no fitted attributes
        assert {name for name in vars(clf) if name.endswith("_")} <= names
    assert [name for name, text in shown if text is None] == []


STRATEGIES = [
    *(make() for make in (SAMPLERS | PRUNERS | WEIGHTINGS | CALIBRATORS).values()),
    FixedDraws([3]),
    GaussianBackend(),
    GaussianMixtureBackend([[0.0], [1.0]], [[[1.0]], [[1.0]]]),
    FunctionBackend(abs, schedule=NoiseSchedule.flow(9)),
    load_embedded(),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_strategies_show_their_parameters_with_documentation(strategy):
    shown = rows(strategy)
    assert {name for name, _ in shown} == set(strategy.get_params(deep=False))
    assert all(text for _, text in shown)


def test_the_repr_stays_short_with_a_pipeline_in_memory():
    backend = DiffusersBackend(tiny_sd())
    assert repr(backend) == "DiffusersBackend(StableDiffusionPipeline, in memory)"
    clf = DiffusionClassifier(backend, pruner=NoPruning(8))
    expected = (
        "DiffusionClassifier(backend=DiffusersBackend(pipeline=StableDiffusionPipeline in memory)"
    )
    for estimator in (clf, clf.fit(None, ["cat", "dog"])):
        assert " ".join(repr(estimator).split()).startswith(expected)
        assert len(repr(estimator)) < 160
    assert expected[:40] in repr(make_pipeline(clf)) and len(repr(make_pipeline(clf))) < 400
    assert "UNet2DConditionModel" not in clf._repr_html_()
    assert len(clf._repr_html_()) < 100_000


def test_the_repr_names_where_a_pipeline_was_loaded_from(tmp_path):
    folder = saved(tiny_sd(), tmp_path)
    clf = DiffusionClassifier(DiffusersBackend.from_pretrained(folder))
    assert f"StableDiffusionPipeline {folder!r}" in repr(clf)
