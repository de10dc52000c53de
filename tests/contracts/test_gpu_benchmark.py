"""The benchmark of GPUs runs everywhere, and its models have their published sizes."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = {
    "SD1.5": 859_520_964,
    "SDXL": 2_567_463_684,
    "SD3 medium": 2_028_328_000,
    "Flux dev": 11_901_408_320,
}


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in ("gpu", "gpu_page", "networks", "report"):
        sys.modules.pop(name, None)


def test_denoisers_have_their_published_sizes(gpu):
    with torch.device("meta"):
        found = {name: model.denoiser(1) for name, model in gpu.MODELS.items()}
    assert {
        name: sum(p.numel() for p in network.parameters()) for name, network in found.items()
    } == SIZES


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_it_runs_at_an_eighth_of_the_width(gpu, tmp_path, capsys, name):
    path = tmp_path / "gpu.json"
    gpu.main(["--width", "8", "--models", name, "--json", str(path)])
    assert f"| {name} | 2 | 80 |" in capsys.readouterr().out
    race = json.loads(path.read_text())[name]["race"]
    assert race["rows"] == 80  # 2 images, 10 classes, 4 draws
    assert 0 < race["occupancy"] <= 1 <= race["in-net"]
