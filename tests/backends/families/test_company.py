"""Errors of a prompt are the same whichever prompts are encoded with it."""

import pytest
import torch

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.base import Conditioning
from diffusion_classifier.backends.families import language
from tests.support.company import dependence_on_company
from tests.support.family_cases import CASES

pytestmark = pytest.mark.filterwarnings("ignore:prompt .* has .* tokens")


def images(case):
    return torch.rand(1, 3, *case.pixels, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.text_encoders])
def test_a_condition_does_not_depend_on_the_prompts_beside_it(name):
    case = CASES[name]
    assert dependence_on_company(DiffusersBackend(case.build()), images(case)) <= 1e-5


def test_padding_to_the_longest_prompt_without_a_mask_would_be_noticed(monkeypatch):
    def encode_together(self, pipeline, prompts):
        states, _ = language.encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        n_tokens = torch.full((len(prompts),), states.shape[1])
        return Conditioning(states=states, n_tokens=n_tokens)

    monkeypatch.setattr(language.CogView4, "encode_prompts", encode_together)
    case = CASES["cogview4"]
    assert dependence_on_company(DiffusersBackend(case.build()), images(case)) > 1e-3
