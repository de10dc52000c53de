"""Fitted classifiers whose pipeline changes afterwards, and what they then refuse."""

import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.pruners import NoPruning

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def fitted(backend):
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0)
    return clf.fit(None, ["a cat", "a dog", "two eels"])


def refuses(clf, method, message="changed since fit.*call fit again"):
    with pytest.raises(InputValueError, match=message):
        getattr(clf, method)(IMAGES)
    return True
