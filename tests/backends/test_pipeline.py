"""DiffusersBackend against direct calls of the pipeline's own parts."""

import copy
import logging
import pickle

import diffusers
import pytest
import torch
from sklearn.base import clone

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.backends import pipeline as pipeline_module
from diffusion_classifier.backends import pretrained as pretrained_module
from diffusion_classifier.noise import PREDICTION_TYPES, NoiseSchedule, noise_errors
from tests.support.pipelines import (
    IMAGE_SIZE,
    MAX_TOKENS,
    PROMPTS,
    conditional_unet,
    epsilon_errors,
    saved,
    tiny_sd,
)

pytestmark = pytest.mark.usefixtures("empty_model_cache")

SCHEDULERS = (
    diffusers.DDPMScheduler,
    diffusers.DDIMScheduler,
    diffusers.PNDMScheduler,
    diffusers.EulerDiscreteScheduler,
    diffusers.EulerAncestralDiscreteScheduler,
    diffusers.DPMSolverMultistepScheduler,
    diffusers.UniPCMultistepScheduler,
    diffusers.LMSDiscreteScheduler,
    diffusers.HeunDiscreteScheduler,
)
KINDS = ("epsilon", "v_prediction", "sample")


@pytest.fixture
def images():
    return torch.rand(2, 3, *IMAGE_SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.inference_mode()
@pytest.mark.parametrize("shift", [None, 0.3])
def test_latents_are_the_shifted_and_scaled_mode_of_the_autoencoder(images, shift):
    pipeline = tiny_sd()
    pipeline.vae.register_to_config(shift_factor=shift, scaling_factor=0.7)
    latents = DiffusersBackend(pipeline).encode_images(images)
    expected = (pipeline.vae.encode(images).latent_dist.mode() - (shift or 0)) * 0.7
    assert latents.shape == (2, 4, 8, 8)
    torch.testing.assert_close(latents, expected, rtol=0, atol=0)


def test_image_sides_that_the_autoencoder_cannot_halve_are_refused():
    with pytest.raises(ValueError, match=r"17 x 16 pixels.*divisible by 2"):
        DiffusersBackend(tiny_sd()).encode_images(torch.zeros(1, 3, 17, 16))


def test_conditions_are_those_of_the_pipelines_own_encode_prompt(monkeypatch):
    monkeypatch.setattr(pipeline_module, "PROMPTS_PER_BATCH", 3)
    pipeline = tiny_sd()
    condition = DiffusersBackend(pipeline).encode_classes(PROMPTS, PROMPTS)
    assert len(condition) == len(PROMPTS) == 4
    for p, prompt in enumerate(PROMPTS):
        expected = pipeline.encode_prompt(prompt, "cpu", 1, False)[0]
        torch.testing.assert_close(condition["encoder_hidden_states"][p : p + 1], expected)


@pytest.mark.parametrize("from_disk", [False, True])
def test_output_is_that_of_the_unet_called_directly(tmp_path, from_disk):
    pipeline = tiny_sd()
    backend = DiffusersBackend(pipeline)
    if from_disk:
        backend = DiffusersBackend.from_pretrained(saved(pipeline, tmp_path))
    z, t = torch.randn(4, 4, 8, 8), torch.tensor([0, 250, 500, 999])
    states = pipeline.encode_prompt(list(PROMPTS), "cpu", 1, False)[0]
    expected = pipeline.unet(z, t, encoder_hidden_states=states).sample
    output = backend.forward(z, t, backend.encode_classes(PROMPTS, PROMPTS))
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_images_and_prompts_equals_one_by_one_loops(images, kind):
    backend = DiffusersBackend(tiny_sd(kind))
    timesteps = [20, 480, 970]
    expected = epsilon_errors(backend, images, PROMPTS, timesteps)

    x, condition = backend.encode_images(images), backend.encode_classes(PROMPTS, PROMPTS)
    i, p, j = torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)).T
    generator = torch.Generator().manual_seed(0)
    eps = torch.cat([torch.randn(1, 4, 8, 8, generator=generator) for _ in timesteps])[j]
    t = torch.tensor(timesteps)[j]
    alpha, sigma = (level.float().view(-1, 1, 1, 1) for level in backend.schedule.at(t))
    with torch.inference_mode():
        output = backend.forward(alpha * x[i] + sigma * eps, t, condition[p])
    table = PREDICTION_TYPES[kind]
    target, scale = table.target(x[i], eps, alpha, sigma), table.scale(alpha, sigma).flatten()
    errors = noise_errors(output, target, scale, "l2").view(2, 4, 3)
    torch.testing.assert_close(errors, expected, rtol=1e-5, atol=1e-5)


def test_prompts_change_the_error_by_more_than_a_percent(images):
    errors = epsilon_errors(DiffusersBackend(tiny_sd()), images, PROMPTS, [500])[..., 0]
    assert (errors.amax(1) / errors.amin(1) > 1.01).all()


@pytest.mark.parametrize("kind", KINDS)
def test_errors_follow_from_the_pipelines_own_denoised_image(images, kind):
    pipeline = tiny_sd(kind, diffusers.DDIMScheduler)
    backend, scheduler = DiffusersBackend(pipeline), pipeline.scheduler
    errors = epsilon_errors(backend, images, PROMPTS[:2], [600])[..., 0]
    scheduler.set_timesteps(1000)
    eps = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x, t = backend.encode_images(images), torch.tensor([600])
    z = scheduler.add_noise(x, eps.expand_as(x), t)
    for p, prompt in enumerate(PROMPTS[:2]):
        states = pipeline.encode_prompt(prompt, "cpu", 1, False)[0].expand(2, -1, -1)
        output = pipeline.unet(z, t, encoder_hidden_states=states).sample
        denoised = scheduler.step(output, 600, z).pred_original_sample
        alpha, sigma = (level.float() for level in backend.schedule.at(t))
        own = ((z - alpha * denoised) / sigma - eps).square().sum((1, 2, 3))
        torch.testing.assert_close(errors[:, p], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_class_gives_the_same_schedule_and_errors(images, scheduler):
    backend = DiffusersBackend(tiny_sd("v_prediction", scheduler))
    reference = DiffusersBackend(tiny_sd("v_prediction", diffusers.DDPMScheduler))
    assert backend.prediction_type == "v_prediction"
    assert torch.equal(backend.schedule.alpha, reference.schedule.alpha)
    assert torch.equal(backend.schedule.sigma, reference.schedule.sigma)
    errors, expected = (
        epsilon_errors(b, images, PROMPTS[:2], [0, 999]) for b in (backend, reference)
    )
    assert torch.equal(errors, expected)


def test_schedule_is_the_forward_process_of_training():
    pipeline = tiny_sd(scheduler=diffusers.EulerDiscreteScheduler)
    schedule = DiffusersBackend(pipeline).schedule
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = NoiseSchedule.from_alphas_cumprod(torch.cumprod(1 - beta, 0))
    torch.testing.assert_close(schedule.alpha, expected.alpha, rtol=1e-5, atol=0)
    torch.testing.assert_close(schedule.sigma, expected.sigma, rtol=1e-4, atol=0)
    x, eps, t = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 500, 999])
    trainer = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    alpha, sigma = (level.float()[:, None] for level in schedule.at(t))
    torch.testing.assert_close(alpha * x + sigma * eps, trainer.add_noise(x, eps, t))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_zero_terminal_snr_ends_at_exactly_no_signal_in_every_class(images, scheduler):
    zero_snr = {"rescale_betas_zero_snr": True}
    backend = DiffusersBackend(tiny_sd("v_prediction", scheduler, **zero_snr))
    trainer = diffusers.DDPMScheduler.from_config(backend.pipeline.scheduler.config)
    assert backend.schedule.alpha[-1] == 0 and backend.schedule.sigma[-1] == 1
    expected = trainer.alphas_cumprod.double()
    torch.testing.assert_close(backend.schedule.alpha**2, expected, rtol=0, atol=1e-6)
    # with no signal in z, v = -x, and the noise is z itself: nothing left to err in
    errors = epsilon_errors(backend, images, PROMPTS[:2], [998, 999])
    assert (errors[..., 0] > 0).all() and (errors[..., 1] == 0).all()


def test_prediction_types_beyond_the_family_are_refused():
    with pytest.raises(ValueError, match=r"flow_prediction.*not yet supported"):
        DiffusersBackend(tiny_sd("flow_prediction"))


def test_a_scheduler_without_noise_levels_is_refused():
    pipeline = tiny_sd()
    pipeline.scheduler = diffusers.IPNDMScheduler()
    with pytest.raises(ValueError, match=r"IPNDMScheduler.*DDIMScheduler\.from_config"):
        DiffusersBackend(pipeline)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_half_precision_autoencoder_runs_in_float32_if_it_asks_to(images, dtype, force_upcast):
    expected = DiffusersBackend(tiny_sd()).encode_images(images)
    pipeline = tiny_sd().to(dtype)
    pipeline.vae.register_to_config(force_upcast=force_upcast)
    seen = []
    pipeline.vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    latents = DiffusersBackend(pipeline).encode_images(images)
    assert seen == [torch.float32 if force_upcast else dtype]
    assert pipeline.vae.dtype == dtype and latents.dtype == torch.float32
    # weights are rounded either way; activations are not if upcast
    error = (latents - expected).abs().max().item()
    assert error < {torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype] * (1 if force_upcast else 4)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)], ids=str
)
def test_half_precision_errors_are_near_those_of_float32(images, dtype, bound):
    expected = epsilon_errors(DiffusersBackend(tiny_sd()), images, PROMPTS, [300, 800])
    backend = DiffusersBackend(tiny_sd().to(dtype))
    errors = epsilon_errors(backend, images, PROMPTS, [300, 800])
    assert backend.dtype == dtype
    assert errors.dtype == torch.float32
    torch.testing.assert_close(errors, expected, rtol=bound, atol=0)


@pytest.mark.parametrize(
    ("sample_size", "expected"), [(8, (16, 16)), ((8, 12), (16, 24)), (None, None)]
)
def test_image_size_is_the_unets_times_the_autoencoders_factor(sample_size, expected):
    pipeline = tiny_sd()
    pipeline.unet.register_to_config(sample_size=sample_size)
    assert DiffusersBackend(pipeline).image_size == expected


def test_image_to_image_pipelines_are_served_alike(images):
    pipeline = tiny_sd()
    twin = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components)
    a, b = (epsilon_errors(DiffusersBackend(p), images, PROMPTS, [500]) for p in (pipeline, twin))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"in_channels": 9}, "takes 9 channels and the autoencoder gives 4.*inpainting"),
        ({"num_class_embeds": 5}, "num_class_embeds.*not supported"),
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 56,
            },
            "addition_embed_type.*not supported",
        ),
    ],
    ids=["inpainting", "classes", "sdxl"],
)
def test_unets_that_need_more_than_a_prompt_are_refused(config, message):
    pipeline = tiny_sd()
    pipeline.unet = conditional_unet(**config)
    with pytest.raises(ValueError, match=message):
        DiffusersBackend(pipeline)


def test_a_missing_component_is_named():
    pipeline = tiny_sd()
    pipeline.text_encoder = None
    with pytest.raises(ValueError, match=r"no text_encoder; set pipeline\.text_encoder"):
        DiffusersBackend(pipeline)


def test_other_pipelines_are_refused_with_the_known_ones():
    class NewPipeline(diffusers.DiffusionPipeline):
        pass

    pipeline = NewPipeline()
    known = r"NewPipeline.*StableDiffusionPipeline.*FluxPipeline.*FunctionBackend\("
    with pytest.raises(ValueError, match=known):
        DiffusersBackend(pipeline)


def test_a_name_in_place_of_a_pipeline_points_to_from_pretrained():
    with pytest.raises(TypeError, match=r"from_pretrained\('owner/model'\)"):
        DiffusersBackend("owner/model")


def test_one_warning_counts_the_long_prompts_and_diffusers_is_silent():
    backend = DiffusersBackend(tiny_sd())
    room = MAX_TOKENS - 2
    fits, long, longer = "a" * room, "a" * (room + 1), "a" * (room + 5)
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign,assignment]
    libraries = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for library in libraries:
        library.addHandler(handler)
    levels = [library.level for library in libraries]
    with pytest.warns(UserWarning) as caught:
        condition = backend.encode_classes(range(4), [fits, long, longer, long])
    for library in libraries:
        library.removeHandler(handler)
    (message,) = (str(w.message) for w in caught)
    assert message.startswith("2 prompts are too long") and f"first {room}" in message
    assert repr(long) in message and f"{room + 1} tokens" in message
    assert logged == [] and [library.level for library in libraries] == levels
    states = condition["encoder_hidden_states"]
    torch.testing.assert_close(states[1], states[2])  # the rest is ignored


def test_learned_concepts_count_as_many_tokens_as_they_have_vectors():
    pipeline = tiny_sd()
    pipeline.tokenizer.add_tokens(["<toy>", "<toy>_1"])
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
    prompt = "a" * (MAX_TOKENS - 3) + " <toy>"
    with pytest.warns(UserWarning, match=f"has {MAX_TOKENS - 1} tokens"):
        DiffusersBackend(pipeline).encode_classes([0], [prompt])


@pytest.mark.parametrize("copier", [clone, copy.copy, copy.deepcopy])
def test_copies_and_clones_share_the_weights(copier):
    backend = DiffusersBackend(tiny_sd())
    twin = copier(backend)
    assert twin is not backend and twin.pipeline is backend.pipeline
    twin.default_template = "a {}"
    assert backend.default_template == "a photo of a {}"


def test_parameters_are_the_pipeline_itself():
    backend, other = DiffusersBackend(tiny_sd()), tiny_sd("v_prediction")
    assert backend.get_params() == {
        "pipeline": backend.pipeline,
        "image_shape": None,
        "free_text_encoder": False,
    }
    backend.set_params(pipeline=other)
    assert backend.pipeline is other and backend.prediction_type == "v_prediction"


def test_repr_is_one_line_that_says_what_and_where_from(tmp_path):
    assert (
        repr(DiffusersBackend(tiny_sd())) == "DiffusersBackend(StableDiffusionPipeline, in memory)"
    )
    folder = saved(tiny_sd(), tmp_path)
    loaded = DiffusersBackend.from_pretrained(folder)
    assert repr(loaded) == f"DiffusersBackend(StableDiffusionPipeline, {folder!r})"


def test_a_pipeline_made_in_memory_cannot_be_pickled():
    with pytest.raises(pickle.PicklingError, match=r"made in memory.*save_pretrained"):
        pickle.dumps(DiffusersBackend(tiny_sd()))


def test_a_pickle_holds_no_weights_and_loads_them_once_on_first_use(tmp_path, images, monkeypatch):
    folder = saved(tiny_sd("v_prediction"), tmp_path)
    backend = DiffusersBackend.from_pretrained(folder, token="secret", dtype=torch.bfloat16)
    expected = epsilon_errors(backend, images, PROMPTS, [500])
    data = pickle.dumps(backend)
    assert len(data) < 30_000 and b"secret" not in data

    loads, load = [], pretrained_module.load_pipeline

    def counted(origin):
        loads.append(origin)
        return load(origin)

    monkeypatch.setattr(pretrained_module, "load_pipeline", counted)
    first, second = pickle.loads(data), pickle.loads(data)
    assert first.prediction_type == "v_prediction" and first.image_size == IMAGE_SIZE
    assert repr(first) == repr(backend) and first.get_params()["pipeline"] is None
    assert loads == []
    assert torch.equal(epsilon_errors(first, images, PROMPTS, [500]), expected)
    assert second.pipeline is first.pipeline and len(loads) == 1
    assert first.dtype == torch.bfloat16


def test_identity_depends_on_the_configuration_only(tmp_path):
    pipeline = tiny_sd()
    identity = DiffusersBackend(pipeline).identity()
    assert identity["pipeline_class"] == "StableDiffusionPipeline" and identity["name"] is None
    folder = saved(pipeline, tmp_path)
    loaded = DiffusersBackend.from_pretrained(folder, revision="abc", dtype=torch.float16)
    assert loaded.identity() == {**identity, "name": folder, "revision": "abc"}
    pipeline.vae.register_to_config(scaling_factor=0.6)
    changed = DiffusersBackend(pipeline).identity()
    assert changed["config_sha256"] != identity["config_sha256"]
