"""Every sampler and pruner with generators of tokens, whose posterior is known."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import FunctionBackend
from diffusion_classifier.errors import InputValueError, OutputShapeError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import PRUNERS, NoPruning, StagedPruner
from diffusion_classifier.samplers import SAMPLERS, EvenSampler, FixedDraws
from tests.support.tokens import N_CLASSES, N_TOKENS, STATES, Joint, by_order

X, JOINT = STATES.numpy(), Joint()
TRUTH = JOINT.posterior().numpy()
N_LEVELS = {"tokens": N_TOKENS, "ordered_tokens": 1}
DRAWS = 400


def predict_in_order(z, t, class_index):
    return by_order(JOINT, z, class_index)


NETWORKS = {"tokens": JOINT, "ordered_tokens": predict_in_order}


def backend_of(kind, network=None):
    return FunctionBackend(
        network or NETWORKS[kind],
        schedule=NoiseSchedule.masking(N_LEVELS[kind]),
        prediction_type=kind,
        input_kind="array",
        input_shape=(N_TOKENS,),
    )


def fitted(kind, **strategies):
    """Fit strategies, which may learn, on 60 labelled images of the joint distribution."""
    rng, y = np.random.default_rng(0), np.repeat(np.arange(N_CLASSES), 20)
    images = [rng.choice(len(X), p=JOINT.table[k].numpy()) for k in y]
    return DiffusionClassifier(backend_of(kind), random_state=0, **strategies).fit(X[images], y)


def sampler_of(name, kind):
    if name == "even":
        return EvenSampler(stages=(N_LEVELS[kind],))
    if name == "fixed":
        noise = torch.randn(DRAWS, N_TOKENS, generator=torch.Generator().manual_seed(0))
        return FixedDraws(torch.arange(DRAWS) % N_LEVELS[kind], noise)
    return name


def pruner_of(name):
    if name == "staged":
        return StagedPruner((100, 200), (2, 2), max_draws=DRAWS)
    return PRUNERS[name](max_draws=DRAWS)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", [*SAMPLERS, "fixed"])
def test_every_sampler_gives_the_posterior(name, kind):
    draws = N_LEVELS[kind] if name == "even" else DRAWS
    clf = fitted(kind, sampler=sampler_of(name, kind), pruner=NoPruning(draws))
    table = clf.errors(X)
    errors = table.errors.astype(float) / table.density
    expected = -JOINT.table.T.log().numpy()
    if kind == "ordered_tokens":  # each order gives it, for an exact network
        np.testing.assert_allclose(errors, expected[:, :, None].repeat(draws, 2), rtol=1e-5)
        np.testing.assert_allclose(clf.predict_proba(table), TRUTH, rtol=1e-4)
        return
    if name == "even":  # 4 draws say little: those of further seeds
        means = []
        for seed in range(60):
            clf.set_params(random_state=seed).fit(None, clf.classes_)
            means.append(clf.errors(X).errors.astype(float).mean(2))
        errors = np.stack(means, 2)
    standard_error = errors.std(2, ddof=1) / np.sqrt(errors.shape[2])
    assert standard_error.max() < 0.2
    z = (errors.mean(2) - expected) / standard_error
    assert np.abs(z).max() < 4.5  # of 48 means


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_gives_the_answers_of_the_posterior(name, kind):
    clf = fitted(kind, pruner=pruner_of(name))
    table = clf.errors(X)
    proba, n_rows = clf.predict_proba(table), table.n_evaluations
    assert (n_rows == N_CLASSES * DRAWS).all() if name == "none" else n_rows.mean() < 950
    if kind == "ordered_tokens":
        np.testing.assert_allclose(proba, TRUTH, rtol=1e-4)
        return
    best = np.sort(TRUTH, 1)
    is_clear = best[:, -1] > 2 * best[:, -2]
    assert is_clear.sum() == 9
    same = proba.argmax(1) == TRUTH.argmax(1)
    assert same[is_clear].all() and same.sum() >= 15


def test_a_race_of_orders_costs_less_than_one_of_masks_for_the_same_answers():
    cost = {}
    for kind in NETWORKS:
        table = fitted(kind).errors(X)
        assert (table.log_posterior().argmax(1).numpy() == TRUTH.argmax(1)).sum() >= 14
        cost[kind] = table.n_evaluations.mean()
    assert cost["ordered_tokens"] < 0.5 * cost["tokens"] < 300


@pytest.mark.parametrize("kind", NETWORKS)
def test_more_even_stages_than_numbers_of_masks_are_refused(kind):
    with pytest.raises(InputValueError, match=rf"stages=.* at most {N_LEVELS[kind]}, the number"):
        DiffusionClassifier(backend_of(kind), sampler="even").fit(None, [0, 1]).predict(X)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    "shape", [(2, 4, 2), (2, 2, 4, 2), (4,), (4, 2, 1), (2, 4), (4, 0), (5, 2), (4, 4, 2), ()]
)
def test_logits_of_another_shape_are_described(kind, shape):
    clf = DiffusionClassifier(
        backend_of(kind, lambda z, t, k: torch.zeros(len(z), *shape)), pruner=NoPruning(4)
    ).fit(None, [0, 1, 2])
    found = ", ".join(map(str, ("6", *shape))) + "," * (not shape)
    message = rf"function returned a tensor of shape \({found}\); .* shape \(6, 4, V logits\)\."
    with pytest.raises(OutputShapeError, match=message):
        clf.set_params(batch_size=6).predict(X[:2])
