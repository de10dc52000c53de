"""Prompts that are too long are warned of once per fit, with their number."""

import warnings

import pytest

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.pruners import NoPruning
from tests.support.family_cases import CASES
from tests.support.pipelines import tiny_sd

LONG = "word " * 40


def truncation_warnings(backend, prompts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend.encode_classes(prompts, prompts)
    return [str(w.message) for w in caught if "the text encoder reads only" in str(w.message)]


def test_one_long_prompt_is_quoted_in_short():
    (message,) = truncation_warnings(DiffusersBackend(tiny_sd()), ["a cat", LONG])
    assert message.startswith("prompt 'word word") and len(message) < 300
    assert "has 160 tokens, but the text encoder reads only the first 22 and" in message


@pytest.mark.parametrize("n", [2, 37, 150])
def test_long_prompts_have_one_warning_with_their_number(n):
    prompts = ["a cat"] + [LONG + str(i) for i in range(n)]
    (message,) = truncation_warnings(DiffusersBackend(tiny_sd()), prompts)
    assert message.startswith(f"{n} prompts are too long: for example, prompt 'word word")


def test_prompts_that_fit_are_not_warned_of():
    assert truncation_warnings(DiffusersBackend(tiny_sd()), ["a cat", "a dog"]) == []


def test_a_fit_warns_once():
    clf = DiffusionClassifier(DiffusersBackend(tiny_sd()), pruner=NoPruning(2))
    with pytest.warns(UserWarning, match="37 prompts are too long") as caught:
        clf.fit(None, [f"{i} {LONG}" for i in range(37)])
    assert len([w for w in caught if "too long" in str(w.message)]) == 1


UNBOUNDED = {"qwen_image_21"}  # it reads prompts of any length
CUT = [name for name, case in CASES.items() if case.text_encoders and name not in UNBOUNDED]


@pytest.mark.parametrize("name", CUT)
def test_every_family_that_cuts_text_warns_once(name):
    backend = DiffusersBackend(CASES[name].build())
    (message,) = truncation_warnings(backend, [LONG * 20, LONG * 20 + "1", "a cat"])
    assert message.startswith("2 prompts are too long")


def test_quotations_are_cut_with_a_warning():
    """ByT5 reads 127 bytes, of which 9 surround the quoted text."""
    backend = DiffusersBackend(CASES["hunyuan_image"].build())
    fits, cut = ('a sign with "' + n * "w" + '"' for n in (118, 119))
    assert truncation_warnings(backend, [fits, "a cat"]) == []
    (message,) = truncation_warnings(backend, [fits, cut, "a cat"])
    assert "has 128 tokens in quotation marks, but the text encoder reads only the first" in message


def test_tokens_of_templates_are_not_counted_to_prompts():
    """HunyuanImage reads 1,000 tokens beside its template's, of which it leaves out 34."""
    pipeline = CASES["hunyuan_image"].build()
    preface = pipeline.prompt_template_encode.split("{}")[0]
    spent = len(pipeline.tokenizer(preface).input_ids)
    pipeline.prompt_template_encode_start_idx = spent  # as with the tokenizer of the real one
    backend = DiffusersBackend(pipeline)
    assert truncation_warnings(backend, [1000 * "w"]) == []
    (message,) = truncation_warnings(backend, [1001 * "w"])
    assert "has 1001 tokens, but the text encoder reads only the first 1000" in message


def test_padding_of_all_prompts_is_left_out():
    pipeline = CASES["hunyuan_image"].build()
    backend = DiffusersBackend(pipeline)
    condition = backend.encode_classes(["a cat", "a hen"], ["a cat", "a hen"])
    start = pipeline.prompt_template_encode_start_idx
    n = len(pipeline.tokenizer(pipeline.prompt_template_encode.format("a cat")).input_ids) - start
    assert condition["encoder_hidden_states"].shape == (2, n, 16)
    assert condition["encoder_hidden_states_2"].shape == (2, 1, 32)
