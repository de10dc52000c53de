"""A saved pipeline, and a watch over what diffusers is asked to load."""

from pathlib import Path

import diffusers
import pytest

from tests.support.pipelines import saved, tiny_sd


@pytest.fixture
def folder(tmp_path):
    return Path(saved(tiny_sd(), tmp_path / "model"))


@pytest.fixture
def spy(monkeypatch):
    """Calls of StableDiffusionPipeline.from_pretrained as (name, options)."""
    calls = []

    def from_pretrained(cls, name, **options):
        calls.append((name, options))
        return tiny_sd()

    monkeypatch.setattr(
        diffusers.StableDiffusionPipeline, "from_pretrained", classmethod(from_pretrained)
    )
    return calls
