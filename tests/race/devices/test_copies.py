"""Copies of networks on other devices: the denoiser alone, once."""

import gc
import weakref

import pytest
import torch

from diffusion_classifier.backends import FunctionBackend, load_embedded
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.race.devices import copy_to
from diffusion_classifier.utils.devices import resolve_devices

META = torch.device("meta")  # another device that every machine has


def test_what_is_already_there_is_not_copied():
    backend = load_embedded()
    assert copy_to(backend, torch.device("cpu")) is backend


def test_only_the_denoiser_is_copied_once_for_all_clones():
    backend = load_embedded()
    twin, again = copy_to(backend, META), copy_to(load_embedded(), META)
    assert twin.device == META and backend.device.type == "cpu"
    assert twin.pipeline.unet is again.pipeline.unet is not backend.pipeline.unet
    assert twin.pipeline.vae is twin.pipeline.text_encoder is None
    assert backend.pipeline.vae is not None
    names = [name for name, _ in backend.pipeline.unet.named_parameters()]
    assert [name for name, _ in twin.pipeline.unet.named_parameters()] == names
    assert all(p.device == META for p in twin.pipeline.unet.parameters())


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, z, t, condition):
        return z * self.scale


def test_modules_of_function_backends_are_copied_and_functions_are_not():
    module = Scaled()
    backend = FunctionBackend(module, schedule=NoiseSchedule.flow(10))
    twin = copy_to(backend, META)
    assert twin.device == twin.function.scale.device == META
    assert backend.function is module and module.scale.device.type == "cpu"
    plain = FunctionBackend(lambda z, t, c: z, schedule=NoiseSchedule.flow(10))
    with pytest.raises(InputTypeError, match=r"cannot be copied to 'meta'.*torch\.nn\.Module"):
        copy_to(plain, META)


def test_a_network_that_was_trained_since_is_copied_again_and_its_old_copy_goes():
    module = Scaled()
    backend = FunctionBackend(module, schedule=NoiseSchedule.flow(10))
    first = copy_to(backend, META).function
    assert copy_to(backend, META).function is first
    with torch.no_grad():
        module.scale.add_(1)
    second = copy_to(backend, META).function
    assert second is not first
    module.scale.data.add_(1)  # which PyTorch does not count as a change
    third, gone = copy_to(backend, META).function, weakref.ref(second)
    assert third is not second
    del second
    gc.collect()
    assert gone() is None


def test_a_network_whose_plain_values_changed_is_copied_again():
    module = Scaled()
    module.power = 1.0
    backend = FunctionBackend(module, schedule=NoiseSchedule.flow(10))
    first = copy_to(backend, META).function
    module.train()  # copies predict, whatever the mode
    assert copy_to(backend, META).function is first
    module.power = 2.0
    assert copy_to(backend, META).function.power == 2.0


def test_lists_of_devices_are_checked(monkeypatch):
    assert resolve_devices(["cpu", "cpu"]) == (torch.device("cpu"),) * 2
    with pytest.raises(InputValueError, match="names no device"):
        resolve_devices([])
    with pytest.raises(InputValueError, match=r"device\[1\]: device='tpu' is not known"):
        resolve_devices(["cpu", "tpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert resolve_devices(["cuda:0", "cuda:1"])[1] == torch.device("cuda", 1)
    with pytest.raises(InputValueError, match=r"device\[0\]='cuda' and device\[1\]='cuda:0' are"):
        resolve_devices(["cuda", "cuda:0"])
    with pytest.raises(InputValueError, match=r"device\[1\]: device='cuda:2' does not exist.*2 d"):
        resolve_devices(["cuda:0", "cuda:2"])
    assert resolve_devices([0, 1]) == (torch.device("cuda", 0), torch.device("cuda", 1))
