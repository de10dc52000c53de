"""Each check of a backend catches the fault that it is named after, and nothing else does."""

import re

import pytest
import torch

from diffusion_classifier.backends import Conditioning, FunctionBackend, load_embedded
from diffusion_classifier.backends.exact import GaussianBackend
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.testing import BACKEND_CHECKS, check_backend
from diffusion_classifier.testing.subject import make_subject

LEVELS = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
CLASSES = ["ant", "bee", "cow", "dog"]


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.classes = torch.nn.Embedding(4, 3)
        self.mix = torch.nn.Conv2d(3, 3, kernel_size=3, padding=1)

    def forward(self, z, t, class_index):
        return self.mix(z + self.classes(class_index)[:, :, None, None])


class BatchNormalised(Network):
    def forward(self, z, t, class_index):
        return super().forward(z - z.mean(0), t, class_index)


class Deaf(Network):
    def forward(self, z, t, class_index):
        return super().forward(z, t, torch.zeros_like(class_index))


class InPlace(Network):
    def forward(self, z, t, class_index):
        z += 1
        return super().forward(z, t, class_index)


class HalfTimes(Network):
    def forward(self, z, t, class_index):
        wave = t.to(z.dtype).sin()  # bfloat16 has no 970
        return super().forward(z, t, class_index) + wave[:, None, None, None]


class Soothing(Network):
    def forward(self, z, t, class_index):
        return super().forward(z, t, class_index).nan_to_num()


def backend(network=Network, kind=FunctionBackend, **options):
    options = {"schedule": LEVELS, "classes": CLASSES, **options}
    return kind(network().eval(), **options)


class OneTooMany(FunctionBackend):
    def encode_classes(self, labels, prompts):
        index = super().encode_classes(labels, prompts)["class_index"]
        return Conditioning(class_index=torch.cat([index, index[:1]]))


class PaddedToTheLongest(FunctionBackend):
    def encode_classes(self, labels, prompts):
        index = super().encode_classes(labels, prompts)["class_index"]
        return Conditioning(class_index=index, length=torch.full_like(index, index.max()))

    def forward(self, z, t, condition):
        return super().forward(z, t, condition) + condition["length"][:, None, None, None]


class Sorting(FunctionBackend):
    def encode_classes(self, labels, prompts):
        if len(labels) > 2:
            labels, prompts = sorted(labels), sorted(prompts)
        return super().encode_classes(labels, prompts)


class Forgetful(FunctionBackend):
    def __getstate__(self):
        return self.__dict__ | {"function": Deaf()}


def half_latents(images):
    return images.half()


BROKEN = {
    "check_schedule": lambda: backend(schedule=NoiseSchedule.from_alphas_cumprod(LEVELS[:100])),
    "check_latents": lambda: backend(encode=half_latents),
    "check_conditions": lambda: backend(kind=OneTooMany),
    "check_company": lambda: backend(kind=PaddedToTheLongest),
    "check_batches": lambda: backend(BatchNormalised),
    "check_order": lambda: backend(kind=Sorting),
    "check_labels_matter": lambda: backend(Deaf),
    "check_inputs_unchanged": lambda: backend(InPlace),
    "check_precision": lambda: backend(HalfTimes),
    "check_nan": lambda: backend(Soothing),
    "check_pickle_and_clone": lambda: backend(kind=Forgetful),
}
NAMES = [check.__name__ for check in BACKEND_CHECKS]


def test_a_sound_backend_passes():
    check_backend(backend())
    check_backend(FunctionBackend(Network().eval(), schedule=LEVELS))  # classes 0 and 1


class Buffers(Network):
    """The same network whose weights are buffers, as of a model that is not trained."""

    def __init__(self):
        super().__init__()
        for part in (self.classes, self.mix):
            for name, weights in [*part.named_parameters()]:
                delattr(part, name)
                part.register_buffer(name, weights.detach())


def test_a_module_of_buffers_alone_passes():
    assert not [*Buffers().parameters()] and len([*Buffers().buffers()]) == 3
    check_backend(backend(Buffers))


def test_embedded_and_exact_models_pass():
    check_backend(load_embedded(), labels=["a red circle", "a blue square", "a circle"])
    X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    fitted = GaussianBackend().fit(X.numpy(), [0, 1] * 20)
    check_backend(fitted, images=X[:2])


def test_every_check_has_a_backend_that_fails_it():
    assert list(BROKEN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_fails_its_own_check_and_no_other(name):
    with pytest.raises(AssertionError, match=f"^{name}: "):
        check_backend(BROKEN[name]())
    check_backend(BROKEN[name](), skip=[name])


def sampled(images):
    return images + torch.randn_like(images)


def test_messages_say_what_is_wrong_where_and_what_to_do():
    def message(faulty):
        with pytest.raises(AssertionError) as caught:
            check_backend(faulty)
        return str(caught.value)

    assert "rather than a sample" in message(backend(encode=sampled))
    assert "when it is encoded before 'dog'; encode prompts one by one" in message(
        backend(kind=PaddedToTheLongest)
    )
    assert re.search(r"row 0 \(t=30\) alone .* Call eval\(\)", message(backend(BatchNormalised)))
    assert "forward changed 'z' in place" in message(backend(InPlace))
    function = FunctionBackend(lambda z, t, k: z * k[:, None, None, None], schedule=LEVELS)
    assert "cannot be pickled" in message(function)
    broken = FunctionBackend(lambda z, t, k: z[:, :2], schedule=LEVELS)
    assert message(broken).startswith("check_company: the backend raised OutputShapeError")


def test_what_the_checks_are_given_is_checked():
    with pytest.raises(InputTypeError, match="backend is str; give a Backend"):
        check_backend("model")
    with pytest.raises(InputValueError, match="skip='check_all' is no check"):
        check_backend(backend(), skip="check_all")
    with pytest.raises(InputValueError, match=r"labels has 1 element\(s\); give at least two"):
        check_backend(backend(), labels=["ant"])
    arrays = backend(input_kind="array")
    with pytest.raises(InputValueError, match="states no input_shape"):
        make_subject(arrays)
