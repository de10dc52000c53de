"""Asking again: errors recorded earlier are not computed twice."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import (
    Conditioning,
    DiffusersBackend,
    FunctionBackend,
    GaussianBackend,
)
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.samplers import FixedDraws, StratifiedSampler
from tests.support import other_pipelines
from tests.support.pipelines import tiny_sd

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
NOISE = np.random.default_rng(1).standard_normal((9, 4, 8, 8))


@pytest.fixture(scope="module")
def backend():
    return DiffusersBackend(tiny_sd())


@pytest.fixture
def make(backend):
    def make(labels=("cat", "dog"), n_draws=6, **options):
        options = {"pruner": NoPruning(n_draws), "random_state": 0, "batch_size": 8, **options}
        return DiffusionClassifier(**{"backend": backend, **options}).fit(None, list(labels))

    return make


@pytest.fixture
def evaluations(monkeypatch):
    """(timestep, prompt embedding's sum) of every row that went through the network, unpadded."""
    counts = []
    from diffusion_classifier.race.progress import Progress

    count = Progress.add_evaluations

    def counted(self, n):
        counts.append(n)
        count(self, n)

    monkeypatch.setattr(Progress, "add_evaluations", counted)
    return counts


def assert_same_table(extended, scratch):
    for part in (lambda table: table, lambda table: table.setup, lambda table: table.scoring):
        for field in dataclasses.fields(part(scratch)):
            if field.name not in ("setup", "scoring", "schedule"):
                np.testing.assert_array_equal(
                    getattr(part(extended), field.name), getattr(part(scratch), field.name)
                )
    np.testing.assert_array_equal(extended.schedule.sigma, scratch.schedule.sigma)


def test_new_labels_are_added_at_the_price_of_the_new_ones(make, evaluations):
    table = make().errors(IMAGES)
    assert sum(evaluations) == 3 * 2 * 6
    clf = make(["ant", "cat", "dog", "eel"])
    evaluations.clear()
    extended = clf.errors(IMAGES, table=table)
    assert sum(evaluations) == 3 * 2 * 6  # ant and eel
    assert_same_table(extended, clf.errors(IMAGES))
    np.testing.assert_array_equal(extended.errors[:, 1:3], table.errors)


@pytest.mark.parametrize(
    ("sampler", "first", "then"),
    [
        (StratifiedSampler(), 4, 12),
        (StratifiedSampler(), 6, 11),  # budgets that cut rounds
        (StratifiedSampler(6, antithetic=True), 4, 10),
        (FixedDraws([5, 10, 20, 40, 80, 160, 320, 640, 999], NOISE, round_size=4), 6, 9),
    ],
)
def test_more_draws_are_taken_after_those_there_are(make, evaluations, sampler, first, then):
    shorter = clone(sampler)
    if isinstance(sampler, FixedDraws):
        shorter.set_params(timesteps=sampler.timesteps[:first], noise=sampler.noise[:first])
    table = make(n_draws=first, sampler=shorter).errors(IMAGES)
    clf = make(n_draws=then, sampler=sampler)
    evaluations.clear()
    extended = clf.errors(IMAGES, table=table)
    assert sum(evaluations) == 3 * 2 * (then - first)
    assert_same_table(extended, clf.errors(IMAGES))


def test_a_race_asks_for_what_it_lacks_only(make, evaluations):
    race = StagedPruner((4,), (2,), max_draws=8)
    few = make(["ant", "cat", "dog"], pruner=StagedPruner((2,), (1,), max_draws=4))
    table = few.errors(IMAGES)  # one survivor each; the others have two draws
    clf = make(["ant", "cat", "dog", "eel"], pruner=race)
    evaluations.clear()
    extended = clf.errors(IMAGES, table=table)
    n_needed = sum(evaluations)
    scratch = clf.errors(IMAGES)
    assert_same_table(extended, scratch)
    known = np.full(scratch.errors.shape, np.nan)
    known[:, :3, : table.errors.shape[2]] = table.errors
    assert n_needed == (~np.isnan(scratch.errors) & np.isnan(known)).sum()
    assert 0 < n_needed < scratch.n_evaluations.sum()


def test_a_pruned_table_can_be_completed(make, evaluations):
    clf = make(pruner=StagedPruner((2,), (1,), max_draws=6))
    table = clf.errors(IMAGES)
    evaluations.clear()
    full = clf.errors(IMAGES, full=True, table=table)
    assert sum(evaluations) == 3 * 2 * 6 - table.n_evaluations.sum()
    np.testing.assert_array_equal(full.errors, clf.errors(IMAGES, full=True).errors)


def test_nothing_new_costs_nothing(make, evaluations):
    clf = make()
    table = clf.errors(IMAGES)
    evaluations.clear()
    assert_same_table(clf.errors(IMAGES, table=table), table)
    assert_same_table(make(n_draws=4).errors(IMAGES, table=table), make(n_draws=4).errors(IMAGES))
    assert sum(evaluations) == 3 * 2 * 4  # the last call, from scratch


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"random_state": 1}, "seed .* set random_state to an integer"),
        ({"loss": "l1"}, "loss='l2', this classifier has 'l1'"),
        ({"image_size": 8}, "image_size="),
        ({"sampler": StratifiedSampler(3)}, "the table's timesteps differ from those"),
    ],
)
def test_a_table_that_cannot_be_compared_is_refused(make, options, complaint):
    table = make().errors(IMAGES)
    with pytest.raises(ValueError, match=complaint):
        make(**options).errors(IMAGES, table=table)


def test_a_table_of_other_images_or_another_network_is_refused(make):
    table = make().errors(IMAGES)
    with pytest.raises(ValueError, match="the table holds 3 images, but X holds 2"):
        make().errors(IMAGES[:2], table=table)
    with pytest.raises(ValueError, match="config_sha256="):
        make(backend=DiffusersBackend(tiny_sd("v_prediction"))).errors(IMAGES, table=table)
    with pytest.raises(TypeError, match="table is of type ndarray; pass the ErrorTable"):
        make().errors(IMAGES, table=table.errors)


def test_classes_known_by_name_are_added_as_texts_are(make, evaluations):
    options = {"backend": DiffusersBackend(other_pipelines.tiny_dit()), "image_size": 16}
    table = make(["3", "black grouse"], **options).errors(IMAGES)
    more = make(["0", "3", "black grouse"], **options)
    evaluations.clear()
    extended = more.errors(IMAGES, table=table)
    assert sum(evaluations) == 3 * 6  # of one class
    np.testing.assert_allclose(extended.errors, more.errors(IMAGES).errors, rtol=1e-5)


class ByPosition(FunctionBackend):
    """A network that learned its classes, and numbers them itself, as the exact backends do."""

    class_by_position = True

    def encode_classes(self, labels, prompts):
        return Conditioning(class_index=torch.as_tensor(np.unique(labels, return_inverse=True)[1]))


def test_classes_known_by_position_cannot_be_added(make):
    def scale(z, t, class_index):
        return z * class_index[:, None, None, None]

    network = ByPosition(scale, schedule=NoiseSchedule.flow(100))
    table = make(backend=network).errors(IMAGES)
    with pytest.raises(ValueError, match="identifies classes by their position"):
        make(["ant", "cat", "dog"], backend=network).errors(IMAGES, table=table)
    more = make(backend=network, n_draws=8)
    assert torch.equal(
        torch.as_tensor(more.errors(IMAGES, table=table).errors),
        torch.as_tensor(more.errors(IMAGES).errors),
    )


def test_exact_backends_go_on_from_a_table_in_their_own_precision():
    rows, labels = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2
    clf = DiffusionClassifier(GaussianBackend(), pruner=NoPruning(6), random_state=0)
    scratch = clf.fit(rows, labels).errors(rows)
    found = clf.errors(rows, table=clf.errors(rows[:5]))
    assert found.errors.dtype == scratch.errors.dtype == np.float64
    np.testing.assert_array_equal(found.errors, scratch.errors)
    raced = clf.set_params(pruner=StagedPruner((2,), (1,), max_draws=6)).fit(rows, labels)
    full = raced.errors(rows, full=True, table=raced.errors(rows))
    np.testing.assert_array_equal(full.errors, scratch.errors)
