import pytest
import torch

from diffusion_classifier.race.batches import BatchSize, is_out_of_memory
from diffusion_classifier.utils.devices import resolve_device, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"


def test_unknown_and_absent_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'gpu' is not known"):
        resolve_device("gpu")
    with pytest.raises(ValueError, match="'cuda:1' is not available"):
        resolve_device("cuda:1")


def test_auto_dtype_is_half_on_cuda_only():
    assert resolve_dtype("auto", CUDA) == torch.float16
    assert resolve_dtype("auto", CPU) == torch.float32
    assert resolve_dtype("bfloat16", CPU) == torch.bfloat16
    assert resolve_dtype(torch.float64, CPU) == torch.float64


@pytest.mark.parametrize("dtype", ["half", torch.int64, 3, None])
def test_unknown_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match='use "auto" or one of float32'):
        resolve_dtype(dtype, CPU)


def test_automatic_batches_shrink_with_the_latent():
    stable_diffusion, scenes = 4 * 64 * 64, 4 * 8 * 8
    assert BatchSize("auto", CPU, scenes).rows == 128
    assert BatchSize("auto", CPU, stable_diffusion).rows == 2
    assert BatchSize("auto", CUDA, stable_diffusion).rows == 64
    assert BatchSize("auto", CUDA, 10**9).rows == 1


def test_padding_is_to_a_power_of_two_or_to_the_given_size():
    automatic = BatchSize("auto", CPU, 256)
    assert [automatic.padded(n) for n in (1, 3, 64, 65, 128)] == [1, 4, 64, 128, 128]
    assert [BatchSize(20, CPU, 256).padded(n) for n in (1, 20)] == [20, 20]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "big", True, None])
def test_impossible_batch_sizes_are_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        BatchSize(batch_size, CPU, 256)


def test_out_of_memory_is_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
