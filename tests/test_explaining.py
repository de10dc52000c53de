"""Evidence maps add up to the table's differences of class losses, whatever the settings."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend, GaussianBackend
from diffusion_classifier.datasets import load_scenes
from diffusion_classifier.errors import InputTypeError, InputValueError, NonFiniteOutputError
from diffusion_classifier.explaining import explain
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.records.certificate import standard_error
from diffusion_classifier.samplers import ImportanceSampler, StratifiedSampler
from tests.support.other_pipelines import tiny_dit
from tests.support.pipelines import tiny_sd

COLORS = ["red digit", "green digit", "blue digit"]
SCENE = load_scenes("test", n_samples=1, random_state=2).images[0]


def fitted(backend=None, labels=COLORS, **options):
    options = {"pruner": NoPruning(4), "random_state": 0} | options
    return DiffusionClassifier(backend, **options).fit(None, labels)


def check_sum(clf, image, a, b):
    table = clf.errors([image], full=True)
    contributions = table.class_losses()[0].double().numpy()
    column = dict(zip(clf.classes_.tolist(), contributions, strict=True))
    log_prior = dict(zip(clf.classes_.tolist(), table.scoring.log_prior.tolist(), strict=True))
    t = table.scoring.temperature(table.errors.shape[2])
    expected = (column[b] - column[a]) / t + log_prior[b] - log_prior[a]
    found = explain(clf, image, a, b)
    assert found.nats.shape == found.standard_error.shape
    assert found.nats.sum() == pytest.approx(expected, rel=1e-4, abs=1e-4 * abs(expected) + 1e-5)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampler": StratifiedSampler(3, antithetic=False), "pruner": NoPruning(4)},
        {"weighting": "likelihood"},
        {"loss": "l1", "calibrator": None},
        {"loss": "huber", "priors": [0.2, 0.3, 0.5]},
        {"prompts": ["a {}", "a photo of a {}"], "prompt_reduction": "best"},
        {"prompts": ["a {}", "a photo of a {}"], "prompt_reduction": "mean"},
        {"batch_size": 3},
    ],
    ids=str,
)
def test_the_map_adds_up_to_the_difference_of_the_table(options):
    found = check_sum(fitted(**options), SCENE, "red digit", "blue digit")
    assert found.nats.shape == (8, 8)  # the embedded model's latents


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_map_of_a_pipeline_adds_up(prediction_type):
    clf = fitted(tiny_sd(prediction_type), ["a cat", "a dog"])
    assert check_sum(clf, SCENE, "a dog", "a cat").nats.shape == (8, 8)


def test_the_variational_bound_has_a_map_too():
    clf = fitted(tiny_dit(), [1, 4], loss="vlb")
    check_sum(clf, SCENE, 1, 4)


def test_the_other_way_round_the_map_changes_its_sign():
    clf = fitted()
    one, other = explain(clf, SCENE, "red digit", "blue digit"), explain(clf, SCENE, *COLORS[2::-2])
    np.testing.assert_allclose(one.nats, -other.nats)
    np.testing.assert_allclose(one.standard_error, other.standard_error)


def halves(shape=(1, 8, 8), fails=False):
    """A network that reads the noise of one half of the columns: class 0 of the left one."""
    schedule = NoiseSchedule.flow(100)
    known = torch.zeros(2, shape[-1])
    known[0, : shape[-1] // 2] = known[1, shape[-1] // 2 :] = 1

    def network(z, t, class_index):
        alpha, sigma = (level.float().view(-1, 1, 1, 1) for level in schedule.at(t))
        guess = (z - alpha * 0.5) / sigma * known[class_index][:, None, None]
        return guess * torch.nan if fails else guess

    options = {"classes": ["left", "right"], "input_shape": shape, "input_kind": "array"}
    return FunctionBackend(network, schedule=schedule, **options)


def test_evidence_lies_where_the_network_sees_it():
    clf = fitted(halves(), ["left", "right"], pruner=NoPruning(100), calibrator=None)
    found = explain(clf, np.full((1, 8, 8), 0.5), "left", "right")
    # The side that a class does not know costs eps^2, of mean 1 and variance 2, at each element.
    assert (found.nats[:, :4] > 0).all() and (found.nats[:, 4:] < 0).all()
    left = found.nats[:, :4]
    assert left.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / left.size / 100))
    assert found.standard_error.mean() == pytest.approx(np.sqrt(2 / 100), rel=0.1)
    z = (found.nats - np.repeat([1, -1], 4)) / found.standard_error
    assert z.std() == pytest.approx(1, abs=0.3)


def test_the_standard_error_is_the_certificates_over_rounds():
    options = {"sampler": StratifiedSampler(3, antithetic=False), "pruner": NoPruning(10)}
    clf = fitted(halves((1, 1, 1)), ["left", "right"], **options)
    X = np.full((1, 1, 1, 1), 0.5)
    table = clf.errors(X, full=True)
    differences = torch.as_tensor(table.errors[0, 1] - table.errors[0, 0])
    expected = standard_error(differences, torch.as_tensor(table.round_of))
    found = explain(clf, X[0], "left", "right").standard_error[0, 0]
    assert expected > 0
    assert found * table.scoring.temperature(10) == pytest.approx(expected, rel=1e-5)


def test_more_draws_and_latents_as_input():
    clf = fitted()
    assert explain(clf, SCENE, *COLORS[:2], n_draws=2).standard_error.shape == (8, 8)
    encoded = explain(clf, clf.encode(SCENE[None]), *COLORS[:2])
    np.testing.assert_allclose(encoded.nats, explain(clf, SCENE, *COLORS[:2]).nats, atol=1e-5)


def test_a_single_round_has_no_standard_error():
    clf = fitted(sampler=ImportanceSampler(4, proposal=np.ones(1000)))
    assert np.isnan(explain(clf, SCENE, *COLORS[:2], n_draws=4).standard_error).all()


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        ("red digit", "mauve digit", InputValueError, "b='mauve digit' is not a class.*classes_"),
        ("red digit", "red digit", InputValueError, "two different classes"),
    ],
)
def test_unknown_classes_are_refused(a, b, error, message):
    with pytest.raises(error, match=message):
        explain(fitted(), SCENE, a, b)


def test_rows_several_images_and_failing_networks_are_refused():
    rows = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    clf = DiffusionClassifier(rows, random_state=0).fit([[-1.0], [1.0]], ["left", "right"])
    with pytest.raises(InputValueError, match=r"latents of shape \(1,\).*no grid"):
        explain(clf, [0.5], "left", "right")
    with pytest.raises(InputValueError, match="one image, not 2"):
        explain(fitted(), fitted().encode(np.stack([SCENE, SCENE])), *COLORS[:2])
    with pytest.raises(InputTypeError, match="clf must be a DiffusionClassifier"):
        explain("model", SCENE, *COLORS[:2])
    clf = fitted(halves(fails=True), ["left", "right"])
    with pytest.raises(NonFiniteOutputError, match="timestep"):
        explain(clf, np.full((1, 8, 8), 0.5), "left", "right")
