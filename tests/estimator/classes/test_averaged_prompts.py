"""``prompt_reduction="embedding"``: averaged text embeddings at the price of one prompt."""

import numpy as np
import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import Conditioning, DiffusersBackend, GaussianBackend
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.estimator.classes.question import average_prompts
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import tiny_sdxl
from tests.support.words import LABELS, WordBackend, mean_of, rows

TEMPLATES = ["a photo of {}", "red {}", "two {}"]  # the model reads "red" and "two"
X, Y = rows(12)


def fitted(prompts=TEMPLATES, **options):
    options = {"prompt_reduction": "embedding", "pruner": NoPruning(8)} | options
    clf = DiffusionClassifier(
        WordBackend(), prompts=prompts, random_state=0, verbose=0, calibrator=None, **options
    )
    return clf.fit(None, LABELS)


def test_a_class_has_one_condition_the_mean_of_its_prompts():
    clf = fitted()
    expected = [np.mean([mean_of(t.format(label)) for t in TEMPLATES], 0) for label in LABELS]
    np.testing.assert_allclose(clf._condition["mean"], expected, atol=1e-6)
    before = clf.backend_.n_rows
    clf.predict(X)
    assert clf.backend_.n_rows - before == 12 * 8 * len(LABELS)  # not 3 times as many
    assert clf.prompts_[LABELS[0]] == [t.format(LABELS[0]) for t in TEMPLATES]


def test_one_template_changes_nothing():
    one, best = fitted(["{}"]), fitted(["{}"], prompt_reduction="best")
    np.testing.assert_array_equal(one.predict_proba(X), best.predict_proba(X))


def test_saved_recorded_and_kept(tmp_path):
    clf = fitted(memory=tmp_path / "memory")
    expected = clf.predict_proba(X)
    clf.save(tmp_path / "clf")
    again = DiffusionClassifier.load(tmp_path / "clf", backend=WordBackend())
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    table = clf.errors(X)
    assert table.prompts[0] == f"mean of {clf.prompts_[LABELS[0]]}"
    np.testing.assert_allclose(clf.predict_proba(table), expected, atol=1e-12)
    single = fitted(TEMPLATES[0], memory=tmp_path / "memory", prompt_reduction="best")
    before = single.backend_.n_rows
    single.predict(X)  # other conditions, other errors
    assert single.backend_.n_rows > before


def test_masks_are_joined_and_only_tokens_are_averaged():
    """Places that some prompts leave empty are averaged over the others."""
    text = torch.arange(24.0).view(4, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]])
    pooled, ids = torch.arange(4.0)[:, None] * torch.ones(5), torch.ones(4, 2, dtype=torch.long)
    found = average_prompts(
        Conditioning(states=text, states_mask=mask, pooled=pooled, ids=ids),
        torch.tensor([0, 0, 1, 1]),
    )
    assert found["states_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert torch.equal(found["states"][0, 0], (text[0, 0] + text[1, 0]) / 2)
    assert torch.equal(found["states"][0, 1], text[0, 1])  # the second prompt has no token there
    assert torch.equal(found["states"][1], (text[2] + text[3]) / 2)
    assert torch.equal(found["pooled"], torch.tensor([[0.5], [2.5]]) * torch.ones(5))
    assert found["ids"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(InputValueError, match="cannot average 'ids', which are integers"):
        average_prompts(Conditioning(ids=torch.arange(4)), torch.tensor([0, 0, 1, 1]))


def test_a_pipeline_averages_what_its_encoder_says():
    backend = DiffusersBackend(tiny_sdxl())
    clf = DiffusionClassifier(
        backend, prompts=["a {}", "the {}"], prompt_reduction="embedding", random_state=0
    ).fit(None, ["cat", "dog"])
    each = backend.encode_classes([0, 0, 1, 1], ["a cat", "the cat", "a dog", "the dog"])
    for name, tensor in each.tensors.items():
        expected = tensor.view(2, 2, *tensor.shape[1:]).mean(1)
        torch.testing.assert_close(clf._condition[name], expected)


def test_networks_that_know_classes_by_index_are_refused():
    backend = GaussianBackend([[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    clf = DiffusionClassifier(backend, prompt_reduction="embedding")
    with pytest.raises(InputValueError, match="knows classes by index"):
        clf.fit([[-1.0], [1.0]], ["a", "b"])
