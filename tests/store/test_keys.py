"""Keys are contents: what is the same has one key, what differs has another."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend, FunctionBackend, GaussianBackend
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.pruners import NoPruning
from diffusion_classifier.samplers import FixedDraws, ImportanceSampler, StratifiedSampler
from diffusion_classifier.store import ErrorStore
from diffusion_classifier.store.keys import draw_keys
from tests.support import other_pipelines, stores
from tests.support.pipelines import tiny_sd

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
SCHEDULE = NoiseSchedule.flow(100)


@pytest.fixture(scope="module")
def backend():
    return DiffusersBackend(tiny_sd())


@pytest.fixture
def make(backend, tmp_path):
    def make(labels=("cat", "dog"), **options):
        options = {"pruner": NoPruning(4), "random_state": 0, "batch_size": 8, **options}
        options = {"backend": backend, "memory": tmp_path / "store", **options}
        return DiffusionClassifier(**options).fit(None, list(labels))

    return make


@pytest.fixture
def counter(monkeypatch):
    return stores.counted(monkeypatch)


def test_the_same_picture_in_any_form_is_found(make, counter, tmp_path):
    clf = make()
    scratch = clf.errors(PICTURES)
    paths = [tmp_path / f"{i}.{kind}" for i, kind in enumerate(("png", "bmp", "tiff"))]
    for picture, path in zip(PICTURES, paths, strict=True):
        Image.fromarray(picture).save(path)
    counter.clear()
    for X in (
        [Image.fromarray(picture) for picture in PICTURES],
        paths,
        torch.as_tensor(PICTURES).permute(0, 3, 1, 2),
        PICTURES / 255,
    ):
        assert stores.same(clf.errors(X), scratch)
    assert int(counter) == 0
    assert len(ErrorStore(tmp_path / "store")) == 3


def test_pixels_are_compared_after_resizing(make, counter):
    clf = make(image_size=16)
    large = [
        Image.fromarray(picture).resize((32, 32), Image.Resampling.NEAREST) for picture in PICTURES
    ]
    scratch = clf.errors(large)
    resized = [picture.resize((16, 16), Image.Resampling.BICUBIC) for picture in large]
    counter.clear()
    assert stores.same(clf.errors(resized), scratch)
    assert int(counter) == 0


def test_latents_have_keys_of_their_own(make, counter):
    clf = make()
    latents = clf.encode(PICTURES)
    scratch = clf.errors(latents)
    counter.clear()
    assert stores.same(clf.errors(latents[1:]), scratch[1:])
    assert int(counter) == 0


@pytest.mark.parametrize(
    "options", [{"loss": "l1"}, {"random_state": 1}, {"image_size": 8}, {"prompts": "one {}"}]
)
def test_what_changes_an_error_is_never_mixed_up(make, counter, options):
    make().errors(PICTURES)
    counter.clear()
    found = make(**options).errors(PICTURES)
    assert int(counter) == found.n_evaluations.sum()
    assert stores.same(found, make(memory=None, **options).errors(PICTURES))


def test_weights_and_dtype_are_part_of_the_network(make, counter):
    make().errors(PICTURES)
    other = tiny_sd()
    with torch.no_grad():
        for parameter in other.unet.parameters():
            parameter.mul_(1.1)
    for pipeline in (other, tiny_sd().to(torch.bfloat16)):
        counter.clear()
        make(backend=DiffusersBackend(pipeline)).errors(PICTURES)
        assert int(counter) == 3 * 2 * 4
    counter.clear()
    make(backend=DiffusersBackend(tiny_sd())).errors(PICTURES)  # the same weights, loaded again
    assert int(counter) == 0


def test_an_adapter_is_another_network(make, counter):
    pipeline = tiny_sd()
    backend = DiffusersBackend(pipeline)
    make(backend=backend).errors(PICTURES)
    with torch.no_grad():
        pipeline.unet.conv_in.weight += 1
    counter.clear()
    make(backend=backend).errors(PICTURES)
    assert int(counter) == 3 * 2 * 4


def test_classes_known_by_name_are_kept_by_index(make, counter):
    options = {"backend": DiffusersBackend(other_pipelines.tiny_dit()), "image_size": 16}
    table = make(["3", "black grouse"], **options).errors(PICTURES)
    counter.clear()
    more = make(["0", "3", "black grouse"], **options).errors(PICTURES)
    assert int(counter) == 3 * 4  # of one class
    np.testing.assert_array_equal(more.errors[:, 1:], table.errors)


def test_a_backend_fitted_on_other_data_is_another_network(tmp_path, counter):
    X, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    store = tmp_path / "store"

    def ask(rows):
        clf = DiffusionClassifier(
            GaussianBackend(), pruner=NoPruning(4), memory=store, random_state=0
        )
        counter.clear()
        clf.fit(X[rows], y[rows]).errors(X[:5])
        return int(counter)

    assert [ask(slice(30)), ask(slice(30)), ask(slice(10, 40))] == [40, 0, 40]


def test_a_network_that_cannot_say_which_it_is_is_refused(tmp_path):
    backend = FunctionBackend(stores.predict_noise, schedule=SCHEDULE, input_kind="array")
    with pytest.raises(
        ValueError, match=r"cannot say which network it is\. Give a FunctionBackend"
    ):
        DiffusionClassifier(backend, memory=tmp_path).fit(None, [0, 1])
    assert list(tmp_path.iterdir()) == []


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, z, t, c):
        return z * c[:, None] * self.scale


def test_a_module_is_known_by_its_name_and_weights(tmp_path, counter):
    network = Network()
    options = {"schedule": SCHEDULE, "input_kind": "array"}
    with pytest.raises(ValueError, match="Give a FunctionBackend a name"):  # its code may change
        DiffusionClassifier(FunctionBackend(network, **options), memory=tmp_path).fit(None, [0, 1])
    backend = FunctionBackend(network, name="toy", **options)
    clf = DiffusionClassifier(backend, pruner=NoPruning(4), memory=tmp_path, random_state=0)
    clf.fit(None, [0, 1]).errors(stores.X)
    paid = int(counter)
    clf.errors(stores.X)
    assert int(counter) == paid
    with torch.no_grad():
        network.scale += 1
    clf.fit(None, [0, 1]).errors(stores.X)
    assert int(counter) == 2 * paid
    clf.backend = FunctionBackend(network, name="toy 2", **options)
    clf.fit(None, [0, 1]).errors(stores.X)
    assert int(counter) == 3 * paid


def test_draws_are_known_by_timestep_and_noise():
    def keys(sampler, seed=0):
        rounds = sampler.rounds(SCHEDULE, seed)
        return np.concatenate([draw_keys(next(rounds)) for _ in range(2)])

    plain, pairs = keys(StratifiedSampler()), keys(StratifiedSampler(4, antithetic=True))
    assert len(set(plain)) == 4 and len(set(pairs)) == 8
    np.testing.assert_array_equal(plain, keys(StratifiedSampler()))
    assert not set(plain) & set(keys(StratifiedSampler(), seed=1))
    noise = np.random.default_rng(0).normal(size=(4, 3))
    fixed = keys(FixedDraws([1, 2, 1, 2], noise, round_size=2))
    np.testing.assert_array_equal(
        fixed, keys(FixedDraws([1, 2, 1, 2], noise, round_size=2), seed=5)
    )
    assert len(set(fixed)) == 4
    proposal = ImportanceSampler(proposal=np.arange(1, 101.0))
    assert len(keys(proposal)) > 0
