"""What a prediction may cost, and what a budget may not silently do."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning, StagedPruner
from diffusion_classifier.race import DrawTape
from diffusion_classifier.samplers import EvenSampler, FixedDraws, StratifiedSampler
from tests.support.pipelines import tiny_sd

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
LABELS = ["cat", "dog", "eel", "fox"]
TEMPLATES = ["a {}", "one {}", "the {}"]


@pytest.fixture(scope="module")
def make():
    backend = DiffusersBackend(tiny_sd())

    def make(labels=LABELS, **options):
        return DiffusionClassifier(backend, random_state=0, **options).fit(None, labels)

    return make


@pytest.mark.parametrize("sampler", [EvenSampler((50, 500)), FixedDraws(range(0, 1000, 2))])
def test_a_grid_is_not_cut_by_the_budget(make, sampler):
    with pytest.raises(ValueError, match="has 500 draws, but the pruner stops at max_draws=200"):
        make(sampler=sampler)


def test_a_budget_without_a_round_is_refused(make):
    with pytest.raises(ValueError, match="max_draws=1 is too small for one round"):
        make(sampler=StratifiedSampler(antithetic=True), pruner=NoPruning(1))


def test_stages_that_add_nothing_are_passed_over():
    tape = DrawTape.of(EvenSampler((5, 6, 7, 8, 10)), NoiseSchedule.flow(1000), 0, 10)
    sizes = []
    while (draws := tape[len(sizes)]) is not None:
        sizes.append(len(draws))
    assert sum(sizes) == 10 and min(sizes) > 0


def test_stages_keep_classes_however_many_prompts_they_have():
    # Class 0 has the three best prompts; keeping two classes must not keep it alone.
    means = torch.tensor([1.0, 1.1, 1.2, 2.0, 3.0, 4.0, 2.5])
    contributions = means.double().view(1, 7, 1).expand(1, 7, 4)
    class_of = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    active = torch.ones(1, 7, dtype=torch.bool)
    active[0, 5] = False
    kept = StagedPruner((4,), (2,), max_draws=8).select(
        contributions, active, torch.arange(4), class_of
    )
    assert kept.tolist() == [[True, True, True, True, True, False, False]]


@pytest.mark.parametrize("reduction", ["best", "mean", "mixture"])
@pytest.mark.parametrize(
    "options",
    [
        {"sampler": StratifiedSampler(8), "pruner": StagedPruner((20,), (2,), max_draws=30)},
        {"sampler": FixedDraws(range(40)), "pruner": StagedPruner((20,), (2,), max_draws=40)},
        {"sampler": EvenSampler((5, 10)), "pruner": StagedPruner((3, 8), (3, 1), max_draws=15)},
        {"pruner": NoPruning(6)},
    ],
)
def test_the_estimate_is_never_exceeded(make, options, reduction):
    prompts = {
        label: [t.format(label) for t in TEMPLATES[: 1 + i]]
        for i, label in enumerate(["eel", "cat", "dog"])
    }
    clf = make(["eel", "cat", "dog"], prompts=prompts, prompt_reduction=reduction, **options)
    most = clf.estimate_cost(1).evaluations
    spent = clf.errors(IMAGES).n_evaluations
    assert (spent <= most).all()
    if isinstance(options["pruner"], NoPruning):
        assert (spent == most).all()


def test_one_prompt_each_is_estimated_exactly(make):
    pruner = StagedPruner((20,), (2,), max_draws=30)
    clf = make(sampler=StratifiedSampler(8), pruner=pruner)
    assert clf.estimate_cost(3).evaluations == 3 * (24 * 4 + 6 * 2)
    assert clf.errors(IMAGES).n_evaluations.tolist() == [24 * 4 + 6 * 2] * 3


@pytest.mark.parametrize(
    "options",
    [
        {"random_state": "x"},
        {"pruner": StagedPruner((50, 20), (5, 2))},
        {"batch_size": "big"},
        {"image_size": "big"},
        {"loss": "mse"},
    ],
)
def test_a_fit_that_fails_changes_nothing(make, options):
    clf = make(pruner=NoPruning(4))
    before = clf.predict_proba(IMAGES)
    good = clf.get_params(deep=False)
    clf.set_params(**options)
    with pytest.raises(ValueError):
        clf.fit(None, ["ant", "bee"])
    clf.set_params(**{name: good[name] for name in options})
    assert clf.classes_.tolist() == LABELS
    np.testing.assert_array_equal(clf.predict_proba(IMAGES), before)


def test_a_hundred_class_names_are_no_regression_problem(make, recwarn):
    make([f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)])
    assert [str(w.message) for w in recwarn if "regression" in str(w.message)] == []


@pytest.mark.parametrize("y", ["cat", {"cat", "dog"}, {"cat": 1, "dog": 2}])
def test_labels_must_be_a_list(make, y):
    with pytest.raises(ValueError, match="must be a list or array of labels"):
        make(y)


def test_labels_of_mixed_types_are_refused(make):
    with pytest.raises(ValueError, match="must all be of one type"):
        make(["cat", 1])


def test_a_later_image_of_another_size_is_named(make):
    pictures = [np.zeros((16, 16, 3), np.uint8)] * 8 + [np.zeros((32, 16, 3), np.uint8)]
    clf = make(["cat", "dog"], pruner=NoPruning(2))
    clf.backend_.image_size = None
    with pytest.raises(ValueError, match=r"image 8 .*set image_size"):
        clf.predict(pictures)


def test_padding_decodes_no_image_twice(make):
    class Counting:
        decoded = 0

        def __len__(self):
            return 1

        def __getitem__(self, i):
            if i:
                raise IndexError(i)
            self.decoded += 1
            from PIL import Image

            return Image.new("RGB", (16, 16))

    images = Counting()
    make(["cat", "dog"], pruner=NoPruning(2), batch_size=8).predict(images)
    assert images.decoded <= 2  # one to encode; one to look at, perhaps


def test_recorded_errors_are_not_paid_again(make):
    clf = make(pruner=StagedPruner((4,), (2,), max_draws=8))  # 4 * 4 + 4 * 2 each
    table = clf.errors(IMAGES)
    assert clf.estimate_cost(3, table=table) == (0, 0.0)
    assert clf.estimate_cost(5, table=table).evaluations == 2 * 24
    assert clf.estimate_cost(5, table[:1]).evaluations == 4 * 24
    assert clf.estimate_cost(5).evaluations == 5 * 24


def test_the_estimate_with_a_table_is_never_exceeded(make):
    few = make(["cat", "dog", "eel"], pruner=StagedPruner((2,), (1,), max_draws=4))
    table = few.errors(IMAGES)  # one survivor each; the others have two draws
    for pruner in (NoPruning(8), StagedPruner((4,), (2,), max_draws=8)):
        clf = make(pruner=pruner)
        scratch = clf.errors(IMAGES)
        known = np.full(scratch.errors.shape, np.nan)
        known[:, :3, : table.errors.shape[2]] = table.errors
        n_paid = (~np.isnan(scratch.errors) & np.isnan(known)).sum()
        cost = clf.estimate_cost(3, table=table)
        assert n_paid <= cost.evaluations < clf.estimate_cost(3).evaluations
        assert cost.seconds > 0
        if isinstance(pruner, NoPruning):
            assert cost.evaluations == n_paid


def test_a_table_of_more_images_or_another_seed_is_no_estimate(make):
    clf = make(pruner=NoPruning(4))
    table = clf.errors(IMAGES)
    with pytest.raises(ValueError, match="the table holds 3 images, but X holds 2"):
        clf.estimate_cost(2, table=table)
    clf.set_params(random_state=1).fit(None, LABELS)
    with pytest.raises(ValueError, match="seed"):
        clf.estimate_cost(3, table=table)
