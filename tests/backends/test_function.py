"""Any callable as a backend: what it is given, what it may return, and what is refused."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend
from diffusion_classifier.errors import InputValueError
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


def test_the_function_sees_latents_timesteps_and_class_indices():
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE, classes=["dog", "cat"])
    condition = backend.encode_classes(["dog", "cat", "dog"], ["dog", "cat", "0"])
    output = backend.forward(
        torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 2]), condition
    )
    assert output.tolist() == [[1.0], [112.0], [23.0]]


# ------------------------------------------------------------------ which index a label means

INDICES = [
    # labels, prompts of the classifier, classes of the backend, indices in the order of classes_
    ([8, 3], None, None, [3, 8]),
    (["8", "3"], None, None, [3, 8]),
    (np.array([3.0, 8.0]), None, None, [3, 8]),
    (["zero", "one"], {"zero": "0", "one": "1"}, None, [1, 0]),
    (["zero", "one"], {"zero": 0, "one": np.int64(1)}, None, [1, 0]),
    (["even", "odd"], {"even": [0, 2], "odd": ["1", 3]}, None, [0, 2, 1, 3]),
    (["cat", "ant"], None, ["dog", "cat", "ant"], [2, 1]),
    (["cat", "ant"], {"cat": "dog", "ant": 1}, ["dog", "cat", "ant"], [1, 0]),
    ([3, 8], None, [8, 5, 3], [2, 0]),
    (["three", "eight"], {"three": 3, "eight": 8}, [8, 5, 3], [0, 2]),
]


@pytest.mark.parametrize(("labels", "prompts", "classes", "indices"), INDICES)
def test_a_class_index_is_what_label_prompt_or_classes_state(labels, prompts, classes, indices):
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE, classes=classes)
    clf = DiffusionClassifier(backend, prompts=prompts).fit(None, labels)
    assert clf._condition["class_index"].tolist() == indices


NO_INDEX = [
    (
        ["zero", "one"],
        None,
        None,
        r"label 'one' states no class index.*integer.*prompts=.*classes=",
    ),
    ([-1, 0], None, None, "label -1 states no class index"),
    ([0, 1], "a photo of a {}", None, r"label 0, with the prompt 'a photo of a 0', states no"),
    ([0, 1], {0: "cat", 1: "dog"}, None, "label 0, with the prompt 'cat', states no"),
    (["cat", "cow"], None, ["dog", "cat"], r"'cow' is not one of the 2 classes.*\['dog', 'cat'\]"),
    ([0, 2], None, ["dog", "cat"], "label 2 is not one of the 2 classes"),
    ([3, 1], None, [8, 3], "label 1 is not one of the 2 classes"),
    (["a", "b"], {"a": "1", "b": "01"}, None, "labels 'a' and 'b' both have class index 1"),
    (["a", "b"], {"a": "0", "b": "dog"}, ["dog"], "labels 'a' and 'b' both have class index 0"),
]


@pytest.mark.parametrize(("labels", "prompts", "classes", "message"), NO_INDEX)
def test_labels_without_one_index_of_their_own_are_refused(labels, prompts, classes, message):
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE, classes=classes)
    with pytest.raises(InputValueError, match=message):
        DiffusionClassifier(backend, prompts=prompts).fit(None, labels)


def test_prompts_are_numbers_only_where_classes_are():
    with pytest.raises(TypeError, match=r"prompts\['a'\].* is of type int"):
        DiffusionClassifier(prompts={"a": 0, "b": 1}).fit(None, ["a", "b"])
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE)
    with pytest.raises(TypeError, match=r"prompts\['a'\].* is of type bool"):
        DiffusionClassifier(backend, prompts={"a": True, "b": 1}).fit(None, ["a", "b"])


def test_a_backend_with_a_template_of_its_own_reads_the_index_from_the_label():
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE, default_template="the {}")
    clf = DiffusionClassifier(backend).fit(None, [8, 3])
    assert clf.prompts_ == {3: ["the 3"], 8: ["the 8"]}
    assert clf._condition["class_index"].tolist() == [3, 8]


def test_a_network_of_ten_digits_tells_3_from_8():
    # Class k is a point mass at k: eps_hat = (z - alpha k) / sigma is exact.
    def noise(z, t, class_index):
        alpha, sigma = (level[:, None].float() for level in SCHEDULE.at(t))
        return (z - alpha * class_index[:, None]) / sigma

    X = np.array([[2.9], [8.2], [3.3]])
    backend = FunctionBackend(noise, schedule=SCHEDULE, input_kind="array")
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    named = FunctionBackend(noise, schedule=SCHEDULE, input_kind="array", classes=digits)
    make = partial(DiffusionClassifier, pruner=NoPruning(8), random_state=0)
    assert make(backend).fit(None, [3, 8]).predict(X).tolist() == [3, 8, 3]
    words = make(named).fit(None, ["three", "eight"])
    assert words.predict(X).tolist() == ["three", "eight", "three"]
    proba = make(backend, prompts={"b": 3, "a": 8}).fit(None, ["a", "b"]).predict_proba(X)
    np.testing.assert_array_equal(proba, words.predict_proba(X))


def test_a_table_serves_other_classes_of_the_same_network():
    X = np.arange(6.0).reshape(3, 2)
    backend = FunctionBackend(add_time_and_class, schedule=SCHEDULE, input_kind="array")
    make = partial(DiffusionClassifier, pruner=NoPruning(4), random_state=0)
    table = make(backend).fit(None, [1, 3]).errors(X)
    more = make(backend).fit(None, [0, 1, 3])
    assert (more.errors(X, table=table).errors == more.errors(X).errors).all()
    other = FunctionBackend(
        add_time_and_class, schedule=SCHEDULE, input_kind="array", classes=[3, 1]
    )
    with pytest.raises(InputValueError, match="config_sha256"):
        make(other).fit(None, [1, 3]).errors(X, table=table)


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ("catdog", TypeError, "classes='catdog' must be a list of names"),
        ({"cat": 0}, TypeError, "must be a list of names"),
        (3, TypeError, "classes=3 must be a list of names"),
        ([], ValueError, "classes is empty"),
        (["a", "b", "a"], ValueError, r"classes\[2\] repeats the name 'a' of classes\[0\]"),
        ([1, "1"], ValueError, r"classes\[1\] repeats the name '1'"),
    ],
)
def test_wrong_classes_are_named(classes, error, message):
    with pytest.raises(error, match=message):
        FunctionBackend(add_time_and_class, schedule=SCHEDULE, classes=classes)


# ------------------------------------------------------------------ inputs and outputs


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
        classes=["b", "a"],
        input_kind="array",
        input_shape=(2, 3),
        image_size=(8, 6),
        default_template="a {}",
        encode=torch.nn.Identity(),
    ).fit(None, ["a", "b"])
    copy = clone(backend)
    assert copy is not backend
    before, after = backend.get_params(deep=False), copy.get_params(deep=False)
    assert all(before[name] is after[name] for name in before)
    assert copy.function is network and copy.image_size == (8, 6)
    assert (copy.prediction_type, copy.input_kind) == ("flow", "array")


def test_output_of_another_shape_is_refused_with_both_shapes():
    backend = FunctionBackend(lambda z, t, k: z[:, :1], schedule=SCHEDULE)
    condition = backend.encode_classes([0, 1], ["0", "1"])
    message = (
        r"returned a tensor of shape \(2, 1\); expected a floating-point tensor of shape \(2, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        backend.forward(torch.zeros(2, 3), torch.tensor([0, 1]), condition)
    backend = FunctionBackend(lambda z, t, k: z.numpy(), schedule=SCHEDULE)
    with pytest.raises(ValueError, match=r"returned ndarray; expected .* \(2, 3\)"):
        backend.forward(torch.zeros(2, 3), torch.tensor([0, 1]), condition)


def test_errors_of_the_function_reach_the_user():
    def broken(z, t, class_index):
        raise RuntimeError("out of paint")

    backend = FunctionBackend(broken, schedule=SCHEDULE)
    with pytest.raises(RuntimeError, match="out of paint"):
        backend.forward(torch.zeros(1, 1), torch.tensor([0]), backend.encode_classes([0], ["0"]))


def test_an_index_beyond_the_embedding_is_named():
    backend = FunctionBackend(Network(), schedule=SCHEDULE, input_kind="array")
    clf = DiffusionClassifier(backend, pruner=NoPruning(2)).fit(None, [1, 7])
    with pytest.raises(IndexError) as error:
        clf.predict(np.zeros((1, 2)))
    assert "class_index in [1, 7]" in error.value.__notes__[0]


def test_a_grey_network_sees_one_channel_of_its_size():
    seen = []

    def network(z, t, class_index):
        seen.append(z.shape[1:])
        return z

    backend = FunctionBackend(network, schedule=SCHEDULE, input_shape=(1, 6, 5))
    assert backend.image_size == (6, 5) and clone(backend).input_shape == (1, 6, 5)
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0).fit(None, [0, 1])
    digits = np.random.default_rng(0).integers(0, 256, (3, 6, 5), dtype=np.uint8)
    latents = clf.encode(digits).values
    expected = torch.from_numpy(digits)[:, None] / 127.5 - 1
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-6)
    rows = clone(backend).set_params(image_shape=(6, 5))
    flat = DiffusionClassifier(rows).fit(None, [0, 1]).encode(digits.reshape(3, 30)).values
    torch.testing.assert_close(flat, latents)
    colour = np.zeros((1, 6, 5, 3), np.uint8)
    colour[..., 1] = 255
    assert clf.encode(colour).values.mean().item() == pytest.approx(2 * 0.587 - 1)
    clf.predict(digits[:, ::2])
    assert set(seen) == {(1, 6, 5)}
    small = clf.set_params(image_size=2).fit(None, [0, 1])
    with pytest.raises(InputValueError, match=r"\(1, 2, 2\) do not fit .* input_shape=\(1, 6, 5\)"):
        small.predict(digits)


def test_arrays_of_a_stated_shape_reach_the_network_in_it():
    # Signals [C, L] of two classes, point masses at -1 and 1.
    def noise(z, t, class_index):
        assert z.shape[1:] == (2, 5)
        alpha, sigma = (level[:, None, None].float() for level in SCHEDULE.at(t))
        return (z - alpha * (2 * class_index[:, None, None] - 1)) / sigma

    backend = FunctionBackend(noise, schedule=SCHEDULE, input_kind="array", input_shape=(2, 5))
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), random_state=0).fit(None, [0, 1])
    signals = np.where(np.arange(3) % 2, 0.9, -0.9)[:, None, None] * np.ones((3, 2, 5))
    assert clf.predict(signals).tolist() == [0, 1, 0]
    proba = clf.predict_proba(torch.as_tensor(signals))
    np.testing.assert_array_equal(clf.predict_proba(signals.reshape(3, 10)), proba)
    assert clf.fit(signals, [0, 1, 0]).predict(signals).tolist() == [0, 1, 0]
    assert clf.estimate_cost(2).evaluations == 16
    for X in (np.zeros((3, 5, 2)), np.zeros((3, 11))):
        with pytest.raises(InputValueError, match=r"input_shape"):
            clf.predict(X)


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
        ({"image_size": (8, 0)}, ValueError, r"image_size\[1\]=0 must be a positive"),
        ({"image_size": 8}, ValueError, "image_size=8 must be .* length 2"),
        ({"input_shape": (8, 8)}, ValueError, r"input_shape=\(8, 8\) must be \(channels, height"),
        ({"input_shape": (4, 8, 8)}, ValueError, "with 1 or 3 channels"),
        ({"input_shape": "grey"}, ValueError, "input_shape='grey' must be"),
        (
            {"input_shape": (1, 8, 8), "image_size": (4, 8)},
            ValueError,
            r"image_size=\(4, 8\) differs from .* input_shape=\(1, 8, 8\)",
        ),
    ],
)
def test_wrong_parameters_are_named(params, error, message):
    good = {"function": add_time_and_class, "schedule": SCHEDULE}
    with pytest.raises(error, match=message):
        FunctionBackend(**good | params)


def test_scheduler_alphas_in_place_of_their_product_are_warned_of():
    alphas = 1 - torch.linspace(1e-4, 0.02, 1000)
    with pytest.warns(UserWarning, match=r"98% of the image's variance.*scheduler\.alphas_cumprod"):
        FunctionBackend(add_time_and_class, schedule=alphas)
    with pytest.raises(InputValueError, match="not betas"):
        FunctionBackend(add_time_and_class, schedule=1 - alphas)


def test_a_function_that_knows_the_classes_tells_them_apart():
    # Point masses at -1 and +1: eps_hat = (z - alpha x_k) / sigma is exact.
    points = torch.tensor([[-1.0], [1.0]])

    def noise(z, t, class_index):
        alpha, sigma = (level[:, None].float() for level in SCHEDULE.at(t))
        return (z - alpha * points[class_index]) / sigma

    backend = FunctionBackend(
        noise, schedule=SCHEDULE, input_kind="array", classes=["minus", "plus"]
    )
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
