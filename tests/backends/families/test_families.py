"""Every family of pipelines against the pipeline's own code: one suite, the same for all."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends import pipeline as pipeline_module
from diffusion_classifier.backends.resolve import load_backend
from diffusion_classifier.noise import PREDICTION_TYPES, noise_errors
from diffusion_classifier.pruners import NoPruning
from tests.support.family_cases import CASES, Case, watched
from tests.support.own_calls import own_scheduler, recorded
from tests.support.pipelines import saved

TIMESTEPS = (30, 480, 970)


@pytest.fixture(scope="session", params=CASES, ids=str)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="session")
def folder(case, tmp_path_factory) -> str:
    return saved(case.build(), tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def backend(folder) -> DiffusersBackend:
    return load_backend(folder)


@pytest.fixture
def images(case):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, *case.pixels, generator=generator) * 2 - 1


@torch.inference_mode()
def noise_prediction_errors(backend, x, eps, t, condition):
    """Errors of R rows: latents, noise, timesteps, conditions."""
    kind = PREDICTION_TYPES[backend.prediction_type]
    alpha, sigma = (level.float().view(-1, *[1] * (x.ndim - 1)) for level in backend.schedule.at(t))
    output = backend.forward(alpha * x + sigma * eps, t, condition)
    target, scale = kind.target(x, eps, alpha, sigma), kind.scale(alpha, sigma).flatten()
    return noise_errors(output, target, scale, "l2")


def rows(backend, images, labels):
    """Every (image, label, timestep): latents, noise, timesteps and conditions."""
    x, condition = backend.encode_images(images), backend.encode_classes(labels, labels)
    i, p, j = torch.cartesian_prod(
        torch.arange(len(x)), torch.arange(len(labels)), torch.arange(len(TIMESTEPS))
    ).T
    eps = torch.randn(len(TIMESTEPS), *x.shape[1:], generator=torch.Generator().manual_seed(0))
    return x[i], eps[j], torch.tensor(TIMESTEPS)[j], condition[p]


def all_errors(backend, images, labels):
    """Errors of shape (image, label, timestep), in one batch."""
    errors = noise_prediction_errors(backend, *rows(backend, images, labels))
    return errors.view(len(images), len(labels), len(TIMESTEPS))


def test_a_saved_pipeline_is_known_by_its_folder(case, backend):
    pipeline = case.build()
    assert type(backend.pipeline) is type(pipeline)
    assert backend.prediction_type == case.prediction_type
    assert backend.image_size == case.image_size
    text = len(case.text_encoders) > 0
    assert backend.text_conditional is text
    assert backend.default_template == ("a photo of a {}" if text else "{}")
    assert backend.schedule.n_timesteps == 1000


def test_noising_is_the_forward_process_of_training(case, backend, images):
    x, t = backend.encode_images(images)[:1], torch.tensor(TIMESTEPS)
    assert x.shape == (1, *case.latent) and x.dtype == torch.float32
    eps = torch.randn(3, *case.latent)
    alpha, sigma = (level.float().view(-1, 1, 1, 1) for level in backend.schedule.at(t))
    z, scheduler = alpha * x + sigma * eps, own_scheduler(case, backend.pipeline)
    if case.prediction_type == "flow":
        sigmas = [(t + 0.5) / 1000 for t in reversed(TIMESTEPS)]
        scheduler.set_timesteps(sigmas=sigmas)
        times = scheduler.timesteps.flip(0)
        expected = scheduler.scale_noise(x.expand_as(eps), times, eps)
    elif case.deviation is not None:
        scheduler.set_timesteps(1000)
        times = scheduler.timesteps.flip(0)[t]
        noisy = scheduler.add_noise(case.deviation * x.expand_as(eps), eps, times)
        sigmas = scheduler.sigmas[:-1].flip(0)[t]
        expected = scheduler.precondition_inputs(noisy, sigmas.view(-1, 1, 1, 1))
    else:
        expected = scheduler.add_noise(x.expand_as(eps), eps, t)
    torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_of_images_and_labels_equals_one_by_one_loops(case, backend, images):
    x, eps, t, condition = rows(backend, images, case.labels)
    errors = noise_prediction_errors(backend, x, eps, t, condition)
    for r in range(0, len(x), 5):
        row = slice(r, r + 1)
        alone = noise_prediction_errors(backend, x[row], eps[row], t[row], condition[row])
        torch.testing.assert_close(alone, errors[row], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_denoiser_is_given_what_the_pipelines_own_call_gives_it(case, backend):
    timesteps = (999, 666, 332)
    condition = backend.encode_classes(case.labels, case.labels)
    calls = recorded(case, backend, timesteps)
    assert len(calls) == 3
    for t, call in zip(timesteps, calls, strict=True):
        z = case.unpack(backend.pipeline, latent_of(call))
        with watched(getattr(backend.pipeline, case.denoiser)) as ours:
            output = backend.forward(z, torch.full((len(z),), t), condition)
        given = ours[0].given
        assert given.keys() == call.given.keys()
        for name, expected in call.given.items():
            if torch.is_tensor(expected):
                got, expected = torch.broadcast_tensors(given[name], expected)
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
            else:
                assert given[name] == expected
        own = case.sign * case.unpack(backend.pipeline, call.output)[:, : z.shape[1]]
        torch.testing.assert_close(output, own, rtol=1e-5, atol=1e-5)


def latent_of(call):
    """What a denoiser was asked to denoise, whatever the argument's name."""
    return next(iter(call.given.values()))


@torch.inference_mode()
def test_errors_are_those_of_the_pipelines_own_image_after_one_step(case, backend):
    condition = backend.encode_classes(case.labels, case.labels)
    (call,) = recorded(case, backend, [999])
    z, denoised = (case.unpack(backend.pipeline, part) for part in (latent_of(call), call.stepped))
    denoised = denoised / (case.deviation or 1)
    alpha, sigma = (level.item() for level in backend.schedule.at(torch.tensor(999)))
    eps = torch.randn(z.shape)
    x = (z - sigma * eps) / alpha  # the image whose noised latent the pipeline began with
    t = torch.full((len(z),), 999)
    errors = noise_prediction_errors(backend, x, eps, t, condition)
    own = ((z - alpha * denoised) / sigma - eps).square().flatten(1).sum(1)
    torch.testing.assert_close(errors, own, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_latents_are_what_the_pipelines_own_decoder_undoes(case, backend, images):
    latents = backend.encode_images(images)
    vae = getattr(backend.pipeline, "vae", None)
    if vae is None:
        assert torch.equal(latents, images)
        return
    # from latents to what its decoder reads, the pipeline's own call multiplies and shifts
    call = recorded(case, backend, [999])[0]
    ours = case.unpack(backend.pipeline, call.stepped) / (case.deviation or 1)
    ours, decoded = (part.transpose(0, 1).flatten(1) for part in (ours, call.decoded))
    first, last = ours[:, 0], ours[:, -1]
    slope = (last - first) / (decoded[:, -1] - decoded[:, 0])
    encoded = vae.encode(images[:, :, None] if call.decoded.ndim == 5 else images)
    raw = encoded.latent if "latent" in encoded else encoded.latent_dist.mode()
    expected = slope * (raw.view_as(latents).movedim(1, 3) - decoded[:, 0]) + first
    torch.testing.assert_close(latents, expected.movedim(3, 1), rtol=1e-3, atol=1e-3)


def test_labels_change_the_error(case, backend, images):
    errors = all_errors(backend, images, case.labels)
    assert (errors.amax(1) / errors.amin(1) > 1 + case.spread).any(1).all()


def test_conditions_are_rows_that_can_be_picked_and_joined(case, backend, monkeypatch):
    whole = backend.encode_classes(case.labels, case.labels)
    monkeypatch.setattr(pipeline_module, "PROMPTS_PER_BATCH", 3)
    order = [2, 0, 3, 1]
    labels = [case.labels[k] for k in order]
    shuffled = backend.encode_classes(labels, labels)
    assert len(whole) == len(shuffled) == 4
    for name, tensor in whole[torch.tensor(order)].tensors.items():
        torch.testing.assert_close(shuffled[name], tensor, rtol=1e-5, atol=1e-5)


def test_pickles_and_clones_give_the_same_errors(backend, images, case):
    expected = all_errors(backend, images[:1], case.labels[:2])
    data = pickle.dumps(backend)
    assert len(data) < 40_000
    for twin in (pickle.loads(data), clone(backend)):
        assert torch.equal(all_errors(twin, images[:1], case.labels[:2]), expected)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)], ids=str
)
def test_half_precision_errors_are_near_those_of_float32(case, backend, images, dtype, bound):
    expected = all_errors(backend, images[:1], case.labels)
    half = DiffusersBackend(case.build().to(dtype))
    errors = all_errors(half, images[:1], case.labels)
    assert half.dtype == dtype and errors.dtype == torch.float32
    torch.testing.assert_close(errors, expected, rtol=bound, atol=0)


def test_a_component_that_the_folder_lacks_is_named(case, folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "model"))
    shutil.rmtree(copied / case.denoiser)
    with pytest.raises(FileNotFoundError, match=f"no folder '{case.denoiser}'"):
        load_backend(copied)
    index = json.loads((copied / "model_index.json").read_text())
    index.pop("scheduler")
    (copied / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names no scheduler"):
        load_backend(copied)


def test_a_pipeline_in_memory_without_its_scheduler_is_refused(case):
    pipeline = case.build()
    pipeline.scheduler = None
    with pytest.raises(ValueError, match="no scheduler"):
        DiffusersBackend(pipeline)


def test_a_path_is_all_that_the_classifier_needs(case, folder, images, tmp_path):
    clf = DiffusionClassifier(
        folder,
        pruner=NoPruning(max_draws=2),
        image_size=case.pixels,
        device="cpu",
        batch_size=8,
        random_state=0,
    )
    clf.fit(None, list(case.labels))
    images = (images + 1) / 2
    probabilities = clf.predict_proba(images)
    assert (clf.predict(images) == clf.classes_[probabilities.argmax(1)]).all()
    assert probabilities.shape == (2, 4) and np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert (probabilities.std(1) > 1e-6).all()
    clf.save(tmp_path)
    twins = [DiffusionClassifier.load(tmp_path), pickle.loads(pickle.dumps(clf))]
    for twin in (*twins, clone(clf).fit(None, list(case.labels))):
        np.testing.assert_array_equal(twin.predict_proba(images), probabilities)


def test_wrong_labels_are_named_where_labels_are_classes(case, backend):
    clf = DiffusionClassifier(backend)
    if case.text_encoders:  # any text will do, but not twice
        with pytest.raises(ValueError, match=r"'a cat'\] are given more than once"):
            clf.fit(None, ["a cat", "a dog", "a cat"])
        return
    with pytest.raises(ValueError, match="'no such class' is not a class of this model"):
        clf.fit(None, [case.labels[0], "no such class"])
