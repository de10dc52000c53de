"""Any callable as a backend: what it is given, what it may return, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from tests.support import other_pipelines

SCHEDULE = NoiseSchedule.flow(10)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.classes = torch.nn.Embedding(3, 2)

    def forward(self, z, t, class_index):
        return z + t[:, None] + self.classes(class_index)


def add_time_and_class(z, t, class_index):
    return z + 10 * t[:, None] + 100 * class_index[:, None]


def test_the_function_sees_latents_timesteps_and_sorted_class_positions():
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE)
    condition = backend.encode_classes(["dog", "cat", "dog"], ["d", "c", "d2"])
    output = backend.forward(
        torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2]), condition
    )
    assert output.tolist() == [[101.0], [12.0], [123.0]]


def test_positions_are_those_of_the_fitted_labels_when_fewer_are_encoded():
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE).fit(None, ["c", "a", "b"])
    assert backend.encode_classes(["c", "b"], ["c", "b"])["class_index"].tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"labels\[0\]='d' is not one of the 3 classes"):
        backend.encode_classes(["d"], ["d"])


def test_a_tensor_schedule_holds_alphas_cumprod():
    backend = FunctionBackend(add_time_and_class, schedule=torch.tensor([0.64, 0.36]))
    torch.testing.assert_close(backend.schedule.alpha, torch.tensor([0.8, 0.6]), check_dtype=False)
    torch.testing.assert_close(backend.schedule.sigma, torch.tensor([0.6, 0.8]), check_dtype=False)


def test_images_are_their_own_latents_unless_encoded():
    images = torch.arange(8).view(2, 4)
    plain = FunctionBackend(add_time_and_class, schedule=SCHEDULE).encode_images(images)
    assert plain.dtype == torch.float32 and torch.equal(plain, images.float())
    halved = FunctionBackend(
        add_time_and_class, schedule=SCHEDULE, encode=lambda x: x[:, :2] / 2
    ).encode_images(images)
    assert halved.tolist() == [[0.0, 0.5], [2.0, 2.5]]


def test_a_module_decides_where_and_in_which_dtype_it_runs():
    backend = FunctionBackend(Network().to(torch.bfloat16), schedule=SCHEDULE)
    assert backend.dtype == torch.bfloat16 and backend.device == torch.device("cpu")
    assert backend.encode_images(torch.zeros(1, 2)).dtype == torch.float32
    double = FunctionBackend(Network().double(), schedule=SCHEDULE)
    assert double.encode_images(torch.zeros(1, 2)).dtype == torch.float64
    assert FunctionBackend(add_time_and_class, schedule=SCHEDULE).dtype == torch.float32


def test_a_module_on_another_device_takes_images_and_classes_there():
    backend = FunctionBackend(Network().to("meta"), schedule=SCHEDULE).fit(None, [0, 1, 2])
    assert backend.encode_images(torch.zeros(1, 2)).device.type == "meta"
    assert backend.encode_classes([0], ["0"])["class_index"].device.type == "meta"


def test_clones_share_the_network_and_keep_every_parameter():
    network = Network()
    backend = FunctionBackend(
        network,
        schedule=SCHEDULE,
        prediction_type="flow",
        input_kind="array",
        image_size=(8, 6),
        default_template="a {}",
        encode=torch.nn.Identity(),
    ).fit(None, ["a", "b"])
    copy = clone(backend)
    assert copy is not backend and not hasattr(copy, "classes_")
    before, after = backend.get_params(deep=False), copy.get_params(deep=False)
    assert all(before[name] is after[name] for name in before)
    assert copy.function is network and copy.image_size == (8, 6)
    assert (copy.prediction_type, copy.input_kind) == ("flow", "array")


def test_output_of_another_shape_is_refused_with_both_shapes():
    backend = FunctionBackend(lambda z, t, k: z[:, :1], schedule=SCHEDULE)
    condition = backend.encode_classes(["a", "b"], ["a", "b"])
    message = r"returned a tensor of shape \(2, 1\); expected a tensor of shape \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        backend.forward(torch.zeros(2, 3), torch.tensor([0, 1]), condition)
    backend = FunctionBackend(lambda z, t, k: z.numpy(), schedule=SCHEDULE)
    with pytest.raises(ValueError, match=r"returned ndarray; expected .* \(2, 3\)"):
        backend.forward(torch.zeros(2, 3), torch.tensor([0, 1]), condition)


def test_encode_must_return_one_latent_per_image():
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE, encode=lambda x: x[:1])
    with pytest.raises(ValueError, match=r"encode returned .* \(1, 4\) for 2 images"):
        backend.encode_images(torch.zeros(2, 4))


def test_errors_of_the_function_reach_the_user():
    def broken(z, t, class_index):
        raise RuntimeError("out of paint")

    backend = FunctionBackend(broken, schedule=SCHEDULE)
    with pytest.raises(RuntimeError, match="out of paint"):
        backend.forward(torch.zeros(1, 1), torch.tensor([0]), backend.encode_classes("a", "a"))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"function": 3}, TypeError, "function must be callable, not int"),
        ({"encode": "vae"}, TypeError, "encode must be callable or None, not str"),
        ({"schedule": "cosine"}, TypeError, "1-D tensor of alphas_cumprod, not str"),
        ({"schedule": torch.ones(2, 2)}, TypeError, r"not a tensor of shape \(2, 2\)"),
        ({"schedule": torch.tensor([1.5])}, ValueError, "must be finite"),
        ({"prediction_type": "score"}, ValueError, "prediction_type='score' is not known"),
        ({"input_kind": "text"}, ValueError, "input_kind='text' is not known"),
        ({"image_size": (8, 0)}, ValueError, r"image_size=\(8, 0\) must be \(height, width\)"),
        ({"image_size": 8}, ValueError, r"image_size=8 must be \(height, width\)"),
    ],
)
def test_wrong_parameters_are_named(params, error, message):
    good = {"function": add_time_and_class, "schedule": SCHEDULE}
    with pytest.raises(error, match=message):
        FunctionBackend(**good | params)


def test_a_function_that_knows_the_classes_tells_them_apart():
    # Point masses at -1 and +1: eps_hat = (z - alpha x_k) / sigma is exact.
    points = torch.tensor([[-1.0], [1.0]])

    def noise(z, t, class_index):
        alpha, sigma = (level[:, None].float() for level in SCHEDULE.at(t))
        return (z - alpha * points[class_index]) / sigma

    backend = FunctionBackend(noise, schedule=SCHEDULE, input_kind="array")
    x, eps = backend.encode_images(torch.tensor([[0.8]])), torch.tensor([[0.3]])
    condition = backend.encode_classes(["minus", "plus"], ["minus", "plus"])
    z = (0.55 * x + 0.45 * eps).expand(2, 1)
    errors = (backend.forward(z, torch.tensor([4, 4]), condition) - eps) ** 2
    expected = (0.55 / 0.45 * (x - points).numpy()) ** 2
    np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-5)


def test_a_network_of_ones_own_passes_for_the_pipeline_that_it_is_part_of(tmp_path):
    """What the families' suite says of class-conditional UNets then holds here."""
    pipeline = other_pipelines.tiny_ddpm()
    unet = pipeline.unet

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = unet

        def forward(self, z, t, class_index):
            return self.unet(z, t, class_labels=class_index).sample

    images = np.random.default_rng(0).random((2, 16, 16, 3))
    options = {"pruner": NoPruning(4), "random_state": 0, "batch_size": 8}
    theirs = DiffusionClassifier(DiffusersBackend(pipeline), **options).fit(None, [0, 1, 2, 3])
    expected = theirs.errors(images).errors
    backend = FunctionBackend(
        Network().eval(), schedule=pipeline.scheduler.alphas_cumprod, image_size=(16, 16)
    )
    clf = DiffusionClassifier(backend, **options).fit(None, [0, 1, 2, 3])
    np.testing.assert_allclose(clf.errors(images).errors, expected, rtol=1e-6)
    probabilities = clf.predict_proba(images)
    clf.save(tmp_path)
    again = DiffusionClassifier.load(tmp_path, backend=backend)
    for twin in (again, clone(clf).fit(None, [0, 1, 2, 3])):
        assert (twin.predict_proba(images) == probabilities).all()
    for dtype, bound in ((torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
        half = FunctionBackend(
            copy.deepcopy(backend.function).to(dtype),
            schedule=pipeline.scheduler.alphas_cumprod,
            image_size=(16, 16),
        )
        errors = DiffusionClassifier(half, **options).fit(None, [0, 1, 2, 3]).errors(images).errors
        assert half.dtype == dtype and errors.dtype == np.float32
        np.testing.assert_allclose(errors, expected, rtol=bound)
