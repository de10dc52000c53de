"""Where networks run, and in which precision, when nobody says."""

import pytest
import torch

from diffusion_classifier.errors import InputValueError
from diffusion_classifier.utils.devices import resolve_device, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_prefers_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == torch.device(expected)


def test_named_devices_are_taken_as_they_are():
    assert resolve_device("cpu") == resolve_device(CPU) == CPU


@pytest.mark.parametrize("device", ["gpu", "cuda:x", 1.5, [], None])
def test_an_unknown_device_is_refused_by_name(device):
    with pytest.raises(InputValueError, match=r"device=.* is not known; use \"auto\""):
        resolve_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputValueError, match=f"device='{device}' is not available"):
        resolve_device(device)


def test_auto_is_half_precision_on_cuda_only():
    assert resolve_dtype("auto", CUDA) == torch.float16
    assert resolve_dtype("auto", CPU) == resolve_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_dtypes_are_named_as_torch_names_them(dtype):
    assert resolve_dtype(dtype, CPU) == resolve_dtype(getattr(torch, dtype), CUDA)
    assert str(resolve_dtype(dtype, CPU)) == f"torch.{dtype}"


@pytest.mark.parametrize("dtype", ["half", "int8", torch.int64, 32, None])
def test_an_unknown_dtype_is_refused_by_name(dtype):
    with pytest.raises(InputValueError, match=r"dtype=.* is not known; use \"auto\" or one of"):
        resolve_dtype(dtype, CPU)
