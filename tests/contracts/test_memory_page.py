"""The page on memory holds what its script counts, and the script counts the published models."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support import other_pipelines, pipelines

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
# as their checkpoints have them
DENOISERS = {
    "SDXL": 2_567_463_684,
    "SD3 medium": 2_028_328_000,
    "SD3.5 large": 8_056_627_520,
    "Flux dev": 11_901_408_320,
}


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))


def test_the_tables_are_those_that_the_script_prints(script):
    found = {name: script["count"](size) for name, size in script["SIZES"].items()}
    assert {name: part["denoiser"] for name, part in found.items()} == DENOISERS
    assert script["as_markdown"](found) in PAGE


TINY = {  # which size's call, a tiny denoiser and the condition that it takes
    "SDXL": (pipelines.tiny_sdxl, {"encoder_hidden_states": (24, 32), "text_embeds": (8,)}),
    "SD3 medium": (
        other_pipelines.tiny_sd3,
        {"encoder_hidden_states": (24, 32), "pooled_projections": (16,)},
    ),
    "Flux dev": (
        other_pipelines.tiny_flux,
        {"encoder_hidden_states": (24, 32), "pooled_projections": (16,)},
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_the_call_that_is_measured_runs(script, name):
    build, condition = TINY[name]
    size = script["SIZES"][name]
    network = getattr(build(), size.family.denoiser)
    tiny = replace(
        size,
        denoiser=lambda: type(network).from_config(network.config),
        latent=(4, 8, 8),
        condition=condition,
    )
    denoiser, output = script["call_once"](tiny, "cpu", 3)
    assert {p.dtype for p in denoiser.parameters()} == {output.dtype} == {torch.bfloat16}
    assert output.shape == (3, 4, 8, 8)
    assert torch.get_default_dtype() == torch.float32


def test_measuring_needs_a_gpu(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        script["main"](["--measure"])
    assert "--measure needs a CUDA GPU" in capsys.readouterr().err


def test_text_encoders_are_of_their_published_sizes(script):
    count = script["count_parameters"]
    assert count(script["clip_l"]) == 123_060_480
    assert count(script["clip_g"]) == 694_659_840
    assert count(script["t5_xxl"]) == 4_762_310_656
