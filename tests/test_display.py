"""How the classifier looks: short as text, documented as HTML."""

import html
import re

import pytest
from sklearn.pipeline import make_pipeline

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend, GaussianBackend
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import StratifiedSampler
from diffusion_classifier.schedule import NoiseSchedule

from .pipelines import saved, tiny_sd


def descriptions(estimator):
    """Text of each parameter's documentation in the HTML representation, by parameter."""
    page = estimator._repr_html_()
    found = re.findall(r'class="param-doc-description"[^>]*>\s*(.*?)</span>', page, re.DOTALL)
    texts = [html.unescape(re.sub(r"<br>|\s+", " ", text)) for text in found]
    return {text.partition(":")[0]: text for text in texts}


def test_the_html_shows_every_parameter_with_its_documentation():
    shown = descriptions(DiffusionClassifier())
    assert set(shown) == set(DiffusionClassifier().get_params(deep=False))
    assert "Rows per network call" in shown["batch_size"]
    assert "{'crop', 'pad', 'squash'}" in shown["resize"].replace('"', "'")


@pytest.mark.parametrize(
    "strategy",
    [
        StagedPruner(),
        StratifiedSampler(),
        GaussianBackend(),
        FunctionBackend(abs, schedule=NoiseSchedule.flow(9)),
    ],
)
def test_strategies_show_their_parameters_with_documentation(strategy):
    assert set(descriptions(strategy)) == set(strategy.get_params(deep=False))


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
