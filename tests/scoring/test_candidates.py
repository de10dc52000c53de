"""Answers among candidates: what classes outside get, and who can be first."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.scoring import Scoring
from diffusion_classifier.scoring.candidates import Candidates

K, J = 5, 8
ERRORS = torch.rand(K, J, generator=torch.Generator().manual_seed(0)) * 4
TIMES, DENSITY, ALL = torch.arange(J), torch.ones(J), torch.ones(K, dtype=torch.bool)
SCORING = Scoring(
    torch.ones(J).double(), torch.linspace(-1, 0, K).double().log_softmax(0), torch.arange(K)
)
MASK = np.array([[True, False, True, True, False]])
LOG_PROBA = log_softmax(np.array([[2.0, -1.0, 1.5, 1.0, 0.5]]), axis=1)


def answer(candidates, errors=ERRORS, active=ALL, scoring=SCORING):
    return candidates.of(0).log_posterior(scoring, errors, TIMES, DENSITY, active).numpy()


def test_without_a_proposer_others_have_probability_0():
    found = answer(Candidates(MASK))
    losses = ERRORS.double().mean(1).numpy() - SCORING.log_prior.numpy()
    np.testing.assert_allclose(found[MASK[0]], log_softmax(-losses[MASK[0]]), rtol=1e-12)
    assert (found[~MASK[0]] == -np.inf).all()


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_with_a_proposer_others_keep_its_mass_and_the_prior_is_per_image(strength):
    found = answer(Candidates(MASK, LOG_PROBA, strength))
    q, inside = LOG_PROBA[0], MASK[0]
    scores = -ERRORS.double().mean(1).numpy() + SCORING.log_prior.numpy() + strength * q
    expected = logsumexp(q[inside]) + log_softmax(scores[inside])
    np.testing.assert_allclose(found[inside], expected, rtol=1e-10)
    np.testing.assert_allclose(found[~inside], q[~inside], rtol=1e-10)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)


def test_errors_of_other_classes_do_not_count():
    noisy = ERRORS.clone()
    noisy[torch.tensor(~MASK[0])] = torch.nan
    without = answer(Candidates(MASK), noisy, torch.tensor(MASK[0]))
    np.testing.assert_array_equal(without, answer(Candidates(MASK)))


def test_a_class_outside_is_never_first():
    """Not even if nothing tells any two classes apart."""
    uniform = np.full((1, K), -np.log(K))
    for first in range(K):
        mask = np.zeros((1, K), bool)
        mask[0, [first, (first + 1) % K]] = True
        even = Scoring(torch.ones(J).double(), torch.zeros(K).double(), torch.arange(K))
        found = answer(Candidates(mask, uniform), torch.ones(K, J), scoring=even)
        assert mask[0, found.argmax()]
        np.testing.assert_allclose(np.exp(found), 1 / K, atol=1e-8)


def test_a_single_candidate_needs_no_errors():
    mask = np.arange(K)[None] == 3
    none = torch.empty(K, 0)
    assert answer(Candidates(mask), none)[3] == 0
    found = answer(Candidates(mask, LOG_PROBA), none)
    assert found.argmax() == 3  # though the proposer names class 0
    assert np.exp(found).sum() == pytest.approx(1)


@pytest.mark.parametrize("reduction", ["best", "mean", "mixture"])
def test_losses_of_several_prompts_are_those_of_the_candidates_alone(reduction):
    class_of = torch.tensor([0, 0, 1, 2, 2])
    scoring = Scoring(torch.ones(J).double(), torch.zeros(3).double(), class_of, reduction)
    alone = Scoring(
        torch.ones(J).double(),
        torch.zeros(2).double(),
        class_of[[0, 0, 2, 2]] * 0 + torch.tensor([0, 0, 1, 1]),
        reduction,
    )
    one = Candidates(np.array([[True, False, True]])).of(0)
    found = one.class_losses(scoring, ERRORS, TIMES, DENSITY, ALL)
    rows = [0, 1, 3, 4]
    expected = alone.class_losses_of(ERRORS[rows], TIMES, DENSITY, ALL[rows])
    assert found[1] == torch.inf
    torch.testing.assert_close(found[[0, 2]], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mask", "log_proba", "strength", "message"),
    [
        (MASK.astype(int), None, 0, "boolean array"),
        (~np.ones((2, K), bool), None, 0, "image 0 has no candidate"),
        (MASK, LOG_PROBA[:, :3], 0, r"shape \(1, 5\)"),
        (MASK, LOG_PROBA + 1, 0, "log_proba of image 0 .* sum to 1"),
        (MASK, np.full((1, K), np.nan), 0, "log_proba of image 0"),
        (MASK, LOG_PROBA, -1.0, "strength=-1.0 must be"),
    ],
)
def test_what_makes_no_candidates_is_refused(mask, log_proba, strength, message):
    with pytest.raises(InputValueError, match=message):
        Candidates(mask, log_proba, strength)
