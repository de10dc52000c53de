"""Shared by all tests: one torch thread, no hub, and a fixed seed."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # switches on scikit-learn's array-API checks

import pytest
import torch

from diffusion_classifier.backends import clear_model_cache

collect_ignore_glob = ["contracts/typing/*"]  # scripts that are checked and never run


def pytest_collection_modifyitems(items):
    """Skip what needs a CUDA device where there is none."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def empty_model_cache():
    """No model has been loaded yet, and those that the test loads are dropped after it."""
    clear_model_cache()
    yield
    clear_model_cache()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
