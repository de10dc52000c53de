"""Pruners of users' own, and tables of races that never began, in every part that meets them."""

import numpy as np
import pytest

import diffusion_classifier.race.engine as engine
from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import GaussianBackend
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.pruners import NoPruning, RacingPruner

RNG = np.random.default_rng(0)
Y = np.repeat(list("abcdef"), 4)
X = RNG.normal(size=(24, 3)) + 2 * np.repeat(np.arange(6), 4)[:, None]


def fitted(**options):
    clf = DiffusionClassifier(GaussianBackend(), random_state=0, verbose=0, **options)
    return clf.fit(X, Y)


class LooksAlways(NoPruning):
    def next_look(self, n_draws):
        return 8


class Keeps:
    def select(self, contributions, active, round_of, class_of=None):
        return active


class KeepsAll(Keeps, RacingPruner):
    pass


def test_a_pruner_may_name_a_look_that_is_over():
    own, usual = fitted(pruner=LooksAlways(40)), fitted(pruner=NoPruning(40))
    np.testing.assert_array_equal(own.errors(X[:3]).errors, usual.errors(X[:3]).errors)


def test_a_select_from_a_mixin_is_the_one_that_counts():
    assert RacingPruner.incremental and not KeepsAll.incremental
    table = fitted(pruner=KeepsAll(max_draws=100)).errors(X[:2])
    assert table.n_evaluations.tolist() == [600, 600]


def test_tables_of_a_single_candidate_are_replayed():
    table = fitted().errors(X[:3], candidates=[["a"]] * 3)
    assert table.replay().log_posterior().argmax(1).tolist() == [0, 0, 0]


def test_a_stop_among_other_candidates_raises_what_stopped_it(monkeypatch):
    clf = fitted()
    table = clf.errors(X[:4])

    def stopped(self, requests):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.Engine, "begin", stopped)
    with pytest.raises(KeyboardInterrupt) as caught:
        clf.errors(X, table=table, candidates=[["c", "d"]] * 24)
    assert caught.value.partial is None
    with pytest.raises(KeyboardInterrupt) as caught:
        clf.errors(X, table=table)
    assert len(caught.value.partial) == 4


def test_a_replay_keeps_what_drawings_taught_about_the_temperature():
    clf = DiffusionClassifier(pruner=NoPruning(8), n_fit_samples=4, random_state=0, verbose=0).fit(
        None, ["red digit", "blue digit"]
    )
    table = clf.errors(load_scenes("test", n_samples=1).images, full=True)
    replayed = table.replay(weighting=clf.weighting_)
    assert np.exp(replayed.scoring.log_temperature[0]) == pytest.approx(clf.temperature_)
    np.testing.assert_allclose(replayed.log_posterior(), table.log_posterior())
