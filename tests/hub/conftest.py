"""A Hub on this machine, which huggingface_hub asks instead of the real one."""

import pytest

from tests.support.hub import local_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with local_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub
