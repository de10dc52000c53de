"""Compiled denoisers: what is compiled, and that errors stay the same."""

import copy
import pickle

import pytest
import torch

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends.compiling import compile_denoiser, has_convolutions, is_compiled
from diffusion_classifier.errors import InputValueError
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import IMAGE_SIZE, PROMPTS, sample_output, saved, tiny_sd


@pytest.fixture
def eager(monkeypatch):
    """Compile without a compiler: what torch would compile runs as it is, shape by shape."""
    shapes = []

    def compiled(function, **options):
        def call(*args, **kwargs):
            shapes.append(len(args[0]))
            return function(*args, **kwargs)

        call.options = options
        return call

    monkeypatch.setattr(torch, "compile", compiled)
    return shapes


@pytest.mark.parametrize("mode", ["fast", 1, 0, None, [], "default"])
def test_unknown_modes_are_refused_before_anything_is_loaded(mode):
    with pytest.raises(InputValueError, match="compile="):
        DiffusersBackend.from_pretrained("owner/model", compile=mode)


def test_networks_without_repeated_blocks_are_not_compiled_by_region():
    network = torch.nn.Linear(1, 1)
    with pytest.raises(InputValueError, match="Linear names no repeated blocks"):
        compile_denoiser(network, "regional")
    assert not is_compiled(network)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (torch.nn.Conv2d(1, 1, 3, padding=1), True),
        (torch.nn.Conv2d(1, 1, 2, stride=2), False),  # patches of a transformer
        (torch.nn.Conv2d(1, 1, 1), False),
        (torch.nn.Linear(1, 1), False),
    ],
)
def test_only_convolutions_of_overlapping_windows_count(layer, expected):
    assert has_convolutions(torch.nn.Sequential(layer)) is expected


@pytest.mark.parametrize("mode", [True, "regional", "reduce-overhead"])
def test_a_compiled_denoiser_predicts_the_same(eager, mode):
    pipeline = tiny_sd()
    expected = sample_output(DiffusersBackend(pipeline))
    backend = DiffusersBackend(copy.deepcopy(pipeline)).compile(mode)
    assert backend.compiled and not DiffusersBackend(pipeline).compiled
    torch.testing.assert_close(sample_output(backend), expected, rtol=1e-5, atol=1e-6)
    assert backend.identity() == DiffusersBackend(pipeline).identity()
    weight = backend.pipeline.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_compilation_is_an_option_of_loading_that_pickles_keep_and_saves_drop(eager, tmp_path):
    folder = saved(tiny_sd(), tmp_path / "model")
    backend = DiffusersBackend.from_pretrained(folder, compile=True)
    assert backend.compiled and pickle.loads(pickle.dumps(backend)).compiled
    assert not DiffusersBackend.from_pretrained(folder).compiled
    assert "compile" not in backend.saved_origin()


def test_batches_of_a_compiled_denoiser_have_few_lengths(eager, tmp_path):
    images = torch.rand(3, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(0)).numpy()
    options = {"pruner": NoPruning(5), "random_state": 0}
    plain = DiffusersBackend(tiny_sd())
    expected = DiffusionClassifier(plain, **options).fit(None, list(PROMPTS)).errors(images)
    compiled = DiffusersBackend(tiny_sd()).compile()
    eager.clear()
    table = DiffusionClassifier(compiled, **options).fit(None, list(PROMPTS)).errors(images)
    torch.testing.assert_close(table.errors, expected.errors, rtol=1e-4, atol=1e-4)
    assert set(eager) == {512 // 4}  # 3 images x 4 classes x 5 draws, in short batches
