"""Race and engine against the published algorithm in plain loops."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import EvenSampler, StratifiedSampler
from tests.support import published
from tests.support.pipelines import tiny_sd

LABELS = ["cat", "dog", "eel", "fox", "gnu"]
PROMPTS = ["a photo of a cat", "a photo of a dog", "a photo of an eel", "a photo of a fox"]
PROMPTS += ["a photo of a gnu"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def classifier(pipeline, **options):
    clf = DiffusionClassifier(DiffusersBackend(pipeline), random_state=3, batch_size=7, **options)
    return clf.fit(None, LABELS)


@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_staged_search_is_the_published_one(kind, loss):
    pipeline = tiny_sd(kind)
    clf = classifier(
        pipeline,
        loss=loss,
        sampler=EvenSampler((4, 10)),
        pruner=StagedPruner((4,), (2,), max_draws=14),
    )
    table = clf.errors(IMAGES)
    predictions = clf.predict(IMAGES)
    for i, picture in enumerate(IMAGES):
        expected, winner = published.classify(
            pipeline, picture, PROMPTS, (4, 10), (2, 1), clf.seed_, loss
        )
        for p, by_timestep in expected.items():
            assert table.n_draws[i, p] == len(by_timestep)
            found = dict(zip(table.timesteps.tolist(), table.errors[i, p].tolist(), strict=True))
            for t, error in by_timestep.items():
                assert found[t] == pytest.approx(error, rel=1e-5)
        assert predictions[i] == LABELS[winner]


@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("antithetic", [False, True])
def test_errors_of_the_default_sampler_are_those_of_plain_loops(kind, loss, antithetic):
    pipeline = tiny_sd(kind)
    sampler = StratifiedSampler(4, antithetic=antithetic)
    clf = classifier(pipeline, loss=loss, sampler=sampler, pruner=NoPruning(8))
    rounds = sampler.rounds(clf.backend_.schedule, clf.seed_)
    draws = [
        (int(t), noise)
        for draws in (next(rounds), next(rounds))
        for t, noise in zip(draws.timesteps, draws.noise((4, 8, 8)), strict=True)
    ]
    table = clf.errors(IMAGES)
    assert table.timesteps.tolist() == [t for t, _ in draws]
    for i, picture in enumerate(IMAGES):
        expected = published.full_errors(pipeline, picture, PROMPTS, draws, loss)
        np.testing.assert_allclose(table.errors[i], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_probabilities_are_the_softmax_of_mean_summed_errors(kind):
    clf = classifier(tiny_sd(kind), pruner=NoPruning(8), calibrator=None)
    table = clf.errors(IMAGES)
    losses = table.errors.astype(float).mean(2)
    expected = torch.softmax(-torch.as_tensor(losses), 1).numpy()
    np.testing.assert_allclose(clf.predict_proba(IMAGES), expected, atol=1e-5)
    assert (clf.predict(IMAGES) == np.array(LABELS)[losses.argmin(1)]).all()
