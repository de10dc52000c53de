"""Networks, encoders and backends that are not what the package expects: clear errors each."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import (
    Conditioning,
    DiffusersBackend,
    FunctionBackend,
    GaussianBackend,
)
from diffusion_classifier.backends.base import Backend
from diffusion_classifier.errors import (
    InputError,
    InputTypeError,
    InputValueError,
    NetworkError,
    NonFiniteOutputError,
    OutputShapeError,
)
from diffusion_classifier.matching import match_scores
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from tests.support.pipelines import tiny_sd

SCHEDULE = NoiseSchedule.flow(20)
X = np.random.default_rng(0).normal(size=(5, 3))
EXPECTED = r"; expected a floating-point tensor of shape \(16, 3\)\."


def classifier(function, **options):
    backend = FunctionBackend(function, schedule=SCHEDULE, input_kind="array", **options)
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), batch_size=16, random_state=0)
    return clf.fit(None, [0, 1])


class Own(Backend):
    """A backend of one's own, whose network is as wrong as a function's."""

    schedule, prediction_type, input_kind = SCHEDULE, "epsilon", "array"

    def __init__(self, function=None):
        self.function = function

    def encode_images(self, images):
        return images.float()

    def encode_classes(self, labels, prompts):
        return Conditioning(class_index=torch.tensor(labels))

    def forward(self, z, t, condition):
        return self.function(z, t, condition["class_index"])


# ------------------------------------------------------------------ outputs of the network

WRONG_OUTPUTS = {
    "int": (lambda z: z.round().int(), r"shape \(16, 3\) and dtype torch.int32" + EXPECTED),
    "bool": (lambda z: z > 0, r"and dtype torch.bool" + EXPECTED),
    "complex": (lambda z: z + 0j, r"and dtype torch.complex64" + EXPECTED),
    "None": (lambda z: None, "returned None" + EXPECTED),
    "a tuple": (lambda z: (z,), "returned tuple" + EXPECTED + " Return its first element"),
    "a diffusers output": (
        lambda z: SimpleNamespace(sample=z),
        "returned SimpleNamespace" + EXPECTED + r" Return its \.sample",
    ),
    "numpy": (lambda z: z.numpy(), "returned ndarray" + EXPECTED),
    "one row": (lambda z: z[0], r"returned a tensor of shape \(3,\)" + EXPECTED),
    "one value a row": (lambda z: z[:, :1], r"shape \(16, 1\)" + EXPECTED),
    "a row too few": (lambda z: z[1:], r"shape \(15, 3\)" + EXPECTED),
    "an axis more": (lambda z: z[..., None], r"shape \(16, 3, 1\)" + EXPECTED),
    "sparse": (
        lambda z: z.to_sparse(),
        r"a tensor of shape \(16, 3\) and layout torch.sparse_coo" + EXPECTED,
    ),
    "meta": (lambda z: z.to("meta"), r"a tensor of shape \(16, 3\) on the meta device" + EXPECTED),
}


@pytest.mark.parametrize("kind", WRONG_OUTPUTS)
@pytest.mark.parametrize("make", ["a function", "a backend"])
def test_outputs_that_are_no_prediction_are_described(make, kind):
    wrong, message = WRONG_OUTPUTS[kind]

    def function(z, t, class_index):
        return wrong(z)

    if make == "a function":
        clf, source = classifier(function), "function "
    else:
        clf = DiffusionClassifier(Own(function), pruner=NoPruning(4), batch_size=16)
        with pytest.warns(UserWarning, match="labels are numbers"):
            clf.fit(None, [0, 1])
        source = r"Own\.forward "
    for call in (clf.predict, clf.errors):
        with pytest.raises(OutputShapeError, match=source + ".*" + message) as error:
            call(X)
        assert isinstance(error.value, NetworkError) and len(str(error.value)) < 200


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_placed(value):
    def function(z, t, class_index):
        # only image 3 (the row with a large first value) under class 1
        bad = (z[:, 0].abs() > 1e3) & (class_index == 1)
        return torch.where(bad[:, None], value, z)

    rows = X.copy()
    rows[3, 0] = 1e6
    clf = classifier(function)
    with pytest.raises(NonFiniteOutputError, match=r"NaN or infinity .*\(image 3, prompt 1, 4 of"):
        clf.predict(rows)
    assert clf.predict(rows[:3]).shape == (3,)


def test_a_learned_variance_is_checked_too():
    betas = torch.linspace(1e-3, 0.2, 20, dtype=torch.float64)
    schedule = (1 - betas).cumprod(0)
    for wrong in (lambda z: z, lambda z: (z, z), lambda z: torch.cat([z, z], 1).int()):
        backend = FunctionBackend(
            lambda z, t, k, wrong=wrong: wrong(z),
            schedule=schedule,
            input_kind="array",
            learned_variance=True,
        )
        clf = DiffusionClassifier(backend, loss="vlb", pruner=NoPruning(4), batch_size=16)
        with pytest.raises(OutputShapeError, match=r"\(16, 6\).*twice the channels"):
            clf.fit(None, [0, 1]).predict(X)


# ------------------------------------------------------------------ outputs of the encoder

WRONG_LATENTS = {
    "int": (lambda x: x.int(), r".* and dtype torch.int32"),
    "complex": (lambda x: x + 0j, r".* and dtype torch.complex64"),
    "None": (lambda x: None, r"None; expected .* \(8, \.\.\.\)"),
    "a tuple": (lambda x: (x, x), "tuple; .* Return its first element"),
    "a scalar": (lambda x: x.sum(), r"a tensor of shape \(\)"),
    "one row": (lambda x: x[:1], r"a tensor of shape \(1, 3\)"),
    "nothing": (lambda x: x[:, :0], r"a tensor of shape \(8, 0\)"),
    "a row more": (
        lambda x: torch.cat([x, x[:1]]),
        r".* shape \(9, 3\); expected .* \(8, ",
    ),
}


@pytest.mark.parametrize("kind", WRONG_LATENTS)
def test_latents_that_are_no_latents_are_described(kind):
    encode, message = WRONG_LATENTS[kind]
    clf = classifier(lambda z, t, k: z, encode=encode)
    with pytest.raises(OutputShapeError, match="encoding of images 0 to 4 returned " + message):
        clf.predict(X)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_image_whose_latent_is_not_finite_is_named(value):
    def encode(images):
        return torch.where(images.mean((1, 2, 3), keepdim=True) > 0.9, value, images)

    backend = FunctionBackend(lambda z, t, k: z, schedule=SCHEDULE, encode=encode)
    clf = DiffusionClassifier(backend, pruner=NoPruning(2)).fit(None, [0, 1])
    images = np.zeros((20, 4, 4, 3), np.uint8)
    images[13] = 255
    for call in (clf.predict, clf.encode):
        with pytest.raises(NonFiniteOutputError, match="image 13 has a latent with NaN"):
            call(images)
    assert clf.encode(images[:13]).shape == (13, 3, 4, 4)


# ------------------------------------------------------------------ what is passed as a backend


class Verbose:
    """An object whose repr is long."""

    def __repr__(self):
        return "verbose " * 1000


class Network(torch.nn.Module):
    """A network whose repr has many lines."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 4 + i) for i in range(50)])

    def forward(self, z, t, class_index):
        return z


def own_function(z, t, class_index):
    return z


NO_BACKENDS = {
    "a network": (
        Network(),
        r"not a network \(Network\) alone.*FunctionBackend\(network, schedule=",
    ),
    "a function": (own_function, r"not a function \(own_function\) alone.*FunctionBackend\("),
    "a callable": (partial(own_function, t=0), r"not a function \(partial\) alone"),
    "a UNet": (tiny_sd().unet, r"a network \(UNet2DConditionModel\) alone.*whole pipeline"),
    "a backend's class": (
        GaussianBackend,
        r"not the class GaussianBackend\. Make an instance of it: GaussianBackend\(\.\.\.\)",
    ),
    "a pipeline's class": (type(tiny_sd()), "not the class StableDiffusionPipeline"),
    "a number": (3, r"not 3\."),
    "an object": (Verbose(), "not verbose verbose"),
    "an array": (np.zeros((50, 50)), r"not array\("),
}


@pytest.mark.parametrize("kind", NO_BACKENDS)
def test_what_is_no_backend_is_refused_with_a_way_out(kind):
    backend, message = NO_BACKENDS[kind]
    clf = DiffusionClassifier(backend)
    with pytest.raises(InputTypeError, match="backend must be None, .*" + message) as error:
        clf.fit(None, ["cat", "dog"])
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    with pytest.raises(InputTypeError, match=message):
        match_scores(np.zeros((1, 8, 8, 3)), ["cat", "dog"], backend)


def test_a_pipeline_is_wrapped(tmp_path):
    pipeline = tiny_sd()
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    options = {"pruner": NoPruning(4), "random_state": 0, "batch_size": 4}
    wrapped = DiffusionClassifier(DiffusersBackend(pipeline), **options).fit(None, ["cat", "dog"])
    clf = DiffusionClassifier(pipeline, **options)
    assert isinstance(clf.backend, DiffusersBackend)
    assert len(repr(clf)) < 400 and "StableDiffusionPipeline in memory" in repr(clf)
    later = DiffusionClassifier(**options).set_params(backend=pipeline)
    for twin in (clf, clone(clf), later):
        proba = twin.fit(None, ["cat", "dog"]).predict_proba(images)
        np.testing.assert_array_equal(proba, wrapped.predict_proba(images))
        assert twin.backend_.pipeline is pipeline
    clf.save(tmp_path / "saved")
    loaded = DiffusionClassifier.load(tmp_path / "saved", backend=pipeline)
    np.testing.assert_array_equal(loaded.predict_proba(images), wrapped.predict_proba(images))
    scores = match_scores(images, ["cat", "dog"], pipeline, max_draws=2, random_state=0)
    assert scores.shape == (2, 2)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_pipeline_with_a_network_of_another_library_is_refused(part):
    pipeline = tiny_sd()
    setattr(pipeline, part, torch.nn.Linear(2, 2))
    with pytest.raises(InputValueError, match=f"pipeline.{part} is a Linear, which has no config"):
        DiffusionClassifier(pipeline).fit(None, ["a", "b"])


def test_a_pipeline_of_no_known_family_names_its_class_only():
    class Unknown(DiffusionPipeline):
        def __repr__(self):
            return "unknown " * 1000

    with pytest.raises(InputError, match="this is a Unknown") as error:
        DiffusionClassifier(Unknown())
    assert "unknown unknown" not in str(error.value)


def test_messages_about_a_network_do_not_print_it():
    backend = FunctionBackend(Network(), schedule=SCHEDULE)
    with pytest.raises(InputError, match="FunctionBackend") as error:
        DiffusionClassifier(backend, loss="vlb").fit(None, [0, 1])
    assert len(str(error.value)) < 300
    with pytest.raises(InputError, match=r"FunctionBackend.* no unconditional input") as error:
        match_scores(np.zeros((1, 8, 8, 3)), ["0"], backend)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("method", ["errors", "predict_proba"])
def test_nan_at_one_timestep_costs_one_image_of_a_thousand(method):
    """Image 417 is bright; the network fails for it at timestep 3 only."""

    def network(z, t, k):
        output = z * (1 + k.view(-1, 1, 1, 1))
        bright = z.amax((1, 2, 3)) > 1e3
        return output.masked_fill(((t == 3) & bright).view(-1, 1, 1, 1), torch.nan)

    def encode(images):
        return torch.where(images.amax((1, 2, 3), keepdim=True) == 1, 1e4, images)

    backend = FunctionBackend(
        network, schedule=NoiseSchedule.flow(8), prediction_type="flow", image_size=(2, 2),
        encode=encode,
    )  # fmt: skip
    clf = DiffusionClassifier(backend, pruner=NoPruning(8), random_state=0, batch_size=64)
    clf.fit(None, [0, 1])
    images = np.random.default_rng(0).integers(0, 250, (1000, 2, 2, 3), dtype=np.uint8)
    images[417] = 255
    with pytest.raises(NonFiniteOutputError, match=r"timestep 3 .*image 417"):
        clf.errors(images)
    found = getattr(clf, method)(images, on_error="skip")
    assert [image for image, _ in clf.skipped_] == [417]
    assert "timestep 3" in clf.skipped_[0][1]
    expected = getattr(clf, method)(np.delete(images, 417, 0))
    if method == "errors":
        found, expected = found.errors, expected.errors
    assert np.isnan(found[417]).all()
    np.testing.assert_array_equal(np.delete(found, 417, 0), expected)


def test_a_network_that_fails_for_all_is_an_error_soon():
    calls = []

    def network(z, t, k):
        calls.append(len(z))
        return torch.full_like(z, torch.nan)

    backend = FunctionBackend(network, schedule=NoiseSchedule.flow(8), image_size=(2, 2))
    clf = DiffusionClassifier(backend, pruner=NoPruning(2), random_state=0, batch_size=8)
    with pytest.raises(NonFiniteOutputError):
        clf.fit(None, [0, 1]).predict(np.zeros((500, 2, 2, 3), np.uint8), on_error="skip")
    assert sum(calls) < 9 * 8 * 8 + 1  # nine steps of eight batches
