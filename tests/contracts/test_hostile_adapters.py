"""Pipelines that change behind a fitted classifier: adapters, scales, weights, caches, schedulers.

Each change here moves errors; none may pass in silence.
"""

import functools
import pickle

import diffusers
import numpy as np
import pytest
import torch
from diffusers.hooks import LayerSkipConfig, apply_layer_skip
from peft import LoraConfig

from diffusion_classifier import DiffusionClassifier
from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.errors import InputValueError
from tests.support.adapters import save_lora
from tests.support.fitted import IMAGES, fitted, refuses
from tests.support.pipelines import conditional_unet, saved, tiny_sd

BOTH = ("unet", "text_encoder")
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "errors")


def change_in_errors(one, other):
    """Largest relative difference of the errors of two classifiers."""
    return abs(one.errors(IMAGES).errors / other.errors(IMAGES).errors - 1).max()


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """Folder of a LoRA, by the components that it changes."""
    folder = tmp_path_factory.mktemp("lora")
    return functools.cache(lambda *parts: save_lora(folder / "-".join(parts), *parts))


@pytest.fixture
def clf():
    return fitted(DiffusersBackend(tiny_sd()))


# ------------------------------------------------------------------ adapters


@pytest.mark.parametrize("component", BOTH)
def test_an_adapter_loaded_after_fit_is_refused_until_the_next_fit(clf, lora, component):
    before, pipeline = fitted(DiffusersBackend(tiny_sd())), clf.backend_.pipeline
    latents, table = clf.encode(IMAGES), clf.errors(IMAGES)
    pipeline.load_lora_weights(lora(component), adapter_name="style")
    message = rf"changed since fit: .*{component}: adapter style at scale 1 .*call fit again"
    assert all(refuses(clf, method, message) for method in METHODS)
    clf.fit(None, clf.classes_)
    assert change_in_errors(before, clf) > 0.01
    for stale in (latents, table):
        with pytest.raises(InputValueError, match=f"made with changes=None.*{component}: adapter"):
            clf.predict(stale)
    pipeline.unload_lora_weights()
    refuses(clf, "predict")
    np.testing.assert_array_equal(clf.fit(None, clf.classes_).predict(table), before.predict(table))


def test_a_scale_and_whether_an_adapter_is_on_are_part_of_the_model(clf, lora):
    backend, pipeline = clf.backend_, clf.backend_.pipeline
    plain = backend.identity()
    assert "changes" not in plain
    pipeline.load_lora_weights(lora(*BOTH), adapter_name="style")
    adapted = fitted(backend)
    expected, identity = adapted.predict_proba(IMAGES), backend.identity()
    assert identity["config_sha256"] != plain["config_sha256"]
    pipeline.set_adapters(["style"], [0.5])
    assert backend.identity()["config_sha256"] != identity["config_sha256"]
    refuses(adapted, "errors", r"adapter style at scale 1 .*is now .*adapter style at scale 0\.5 ")
    pipeline.set_adapters(["style"], [0.0])
    assert backend.identity() == plain
    pipeline.set_adapters(["style"], [1.0])
    pipeline.disable_lora()
    assert backend.identity() == plain and refuses(adapted, "predict")
    np.testing.assert_array_equal(clf.predict_proba(IMAGES), fitted(backend).predict_proba(IMAGES))
    pipeline.enable_lora()
    assert backend.identity() == identity
    np.testing.assert_array_equal(adapted.predict_proba(IMAGES), expected)


def test_scales_per_block_are_told_apart(clf, lora):
    backend, pipeline = clf.backend_, clf.backend_.pipeline
    pipeline.load_lora_weights(lora("unet"), adapter_name="style")
    pipeline.set_adapters(["style"], [{"unet": {"down": 0.5, "mid": 1.0, "up": 1.0}}])
    first = backend.identity()
    assert "style at scale 0.5 to 1 " in first["changes"]
    pipeline.set_adapters(["style"], [{"unet": {"down": 1.0, "mid": 1.0, "up": 0.5}}])
    assert "style at scale 0.5 to 1 " in backend.identity()["changes"] != first["changes"]


def test_adapters_of_one_name_are_told_apart_by_their_weights(tmp_path):
    identities = []
    for seed in (0, 1, 0):
        pipeline = tiny_sd()
        folder = save_lora(tmp_path / str(len(identities)), "unet", seed=seed)
        pipeline.load_lora_weights(folder, adapter_name="style")
        identities.append(DiffusersBackend(pipeline).identity())
    assert identities[0] == identities[2] != identities[1]


def test_of_several_adapters_those_that_are_active_count(clf, lora):
    backend, pipeline = clf.backend_, clf.backend_.pipeline
    for name in ("one", "two"):
        pipeline.load_lora_weights(lora("unet"), adapter_name=name)
    pipeline.set_adapters(["two"])
    changes = backend.identity()["changes"]
    assert "two" in changes and "one" not in changes
    pipeline.set_adapters(["one", "two"], [0.3, 0.7])
    changes = backend.identity()["changes"]
    assert "one at scale 0.3" in changes and "two at scale 0.7" in changes


@pytest.mark.parametrize("unload", [True, False])
def test_a_fused_adapter_is_part_of_the_model(clf, lora, unload):
    before, pipeline = fitted(DiffusersBackend(tiny_sd())), clf.backend_.pipeline
    latents, table, plain = clf.encode(IMAGES), clf.errors(IMAGES), clf.backend_.identity()

    def fuse(pipeline, scale):
        pipeline.load_lora_weights(lora("unet"), adapter_name="style")
        pipeline.fuse_lora(components=["unet"], lora_scale=scale)
        if unload:
            pipeline.unload_lora_weights()
        return pipeline

    fuse(pipeline, 1.0)
    refuses(clf, "predict", "changed since fit: .*unet: weights ")
    again = fitted(DiffusersBackend(pipeline))  # a new backend of the same pipeline
    assert change_in_errors(before, again) > 0.01
    for stale in (latents, table):
        with pytest.raises(InputValueError, match="made with changes=None"):
            again.predict(stale)
    # a pipeline in which it was fused before anyone looked
    fused_first = DiffusersBackend(fuse(tiny_sd(), 1.0)).identity()
    weaker = DiffusersBackend(fuse(tiny_sd(), 0.5)).identity()
    assert len({i["config_sha256"] for i in (plain, fused_first, weaker)}) == 3
    assert fused_first["changes"] == again.backend_.identity()["changes"]
    if not unload:
        pipeline.unfuse_lora(components=["unet"])
        pipeline.unload_lora_weights()
        assert clf.backend_.identity() == plain
        np.testing.assert_allclose(clf.errors(IMAGES).errors, table.errors, rtol=1e-4)


def test_what_a_freed_text_encoder_was_is_remembered(lora):
    pipeline = tiny_sd()
    pipeline.load_lora_weights(lora("text_encoder"), adapter_name="style")
    expected = DiffusersBackend(pipeline).identity()
    clf = fitted(DiffusersBackend(pipeline, free_text_encoder=True))
    assert pipeline.text_encoder is None
    assert clf.backend_.identity() == expected and "text_encoder" in expected["changes"]
    assert len(clf.predict(IMAGES)) == 2


# ------------------------------------------------------------------ weights and configuration


def edit_data(pipeline):
    pipeline.unet.conv_in.weight.data += 0.01


def edit_in_place(pipeline):
    with torch.no_grad():
        pipeline.text_encoder.get_input_embeddings().weight.mul_(1.5)


def exchange_network(pipeline):
    pipeline.unet = conditional_unet()


def exchange_text_encoder(pipeline):
    pipeline.text_encoder = type(pipeline.text_encoder)(pipeline.text_encoder.config).eval()


def edit_autoencoder(pipeline):
    pipeline.vae.encoder.conv_in.weight.data *= 1.5


def edit_configuration(pipeline):
    pipeline.vae.register_to_config(scaling_factor=0.7)


def skip_layer(pipeline):
    block = "down_blocks.1.attentions.0.transformer_blocks"
    apply_layer_skip(pipeline.unet, LayerSkipConfig(indices=[0], fqn=block))


def free_u(pipeline):
    pipeline.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)


@pytest.mark.parametrize(
    "change",
    [
        edit_data,
        edit_in_place,
        exchange_network,
        exchange_text_encoder,
        edit_autoencoder,
        edit_configuration,
        skip_layer,
        free_u,
    ],
)
def test_what_changes_in_a_network_after_fit_is_refused(clf, change, tmp_path):
    before, table = fitted(DiffusersBackend(tiny_sd())), clf.errors(IMAGES)
    change(clf.backend_.pipeline)
    assert all(refuses(clf, method) for method in METHODS)
    with pytest.raises(InputValueError, match="changed since fit"):
        clf.save(tmp_path / "stale")
    clf.fit(None, clf.classes_)
    assert change_in_errors(before, clf) > 1e-4
    with pytest.raises(InputValueError, match=r"table was made with"):
        clf.predict(table)


def half_and_back(pipeline):
    pipeline.to(torch.bfloat16).to(torch.float32)


def float16(pipeline):
    pipeline.to(torch.float16)


def channels_last(pipeline):
    pipeline.unet.to(memory_format=torch.channels_last)


def fused_projections(pipeline):
    pipeline.fuse_qkv_projections()


def compiled(pipeline):
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")


@pytest.mark.parametrize(
    "change", [half_and_back, float16, channels_last, fused_projections, compiled]
)
def test_how_a_network_computes_is_no_part_of_the_model(clf, change):
    identity = clf.backend_.identity()
    change(clf.backend_.pipeline)
    assert clf.backend_.identity() == identity
    clf._predictor()  # not refused


def test_a_folder_is_the_same_model_whenever_and_however_it_is_loaded(tmp_path):
    folder = saved(tiny_sd(), tmp_path)
    dtypes = (torch.float32, torch.float32, torch.float16, torch.bfloat16)
    first, *others = (DiffusersBackend.from_pretrained(folder, dtype=dtype) for dtype in dtypes)
    assert all(other.identity() == first.identity() for other in others)
    assert others[0].pipeline is not first.pipeline


def test_a_loaded_classifier_keeps_watch_and_a_pickle_says_what_it_leaves_out(tmp_path, lora):
    backend = DiffusersBackend.from_pretrained(saved(tiny_sd(), tmp_path / "model"))
    fitted(backend).save(tmp_path / "fitted")
    loaded = DiffusionClassifier.load(tmp_path / "fitted", backend=backend)
    expected = loaded.predict_proba(IMAGES)
    backend.pipeline.load_lora_weights(lora("unet"), adapter_name="style")
    refuses(loaded, "predict")
    with pytest.raises(InputValueError, match="was saved with"):
        DiffusionClassifier.load(tmp_path / "fitted", backend=backend)
    copy = pickle.loads(pickle.dumps(fitted(backend)))
    refuses(copy, "predict", r"adapter \(LoRA\).*pickles leave out")
    backend.pipeline.unload_lora_weights()
    np.testing.assert_array_equal(loaded.predict_proba(IMAGES), expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type='v_prediction'.*'epsilon' was read"),
        ({"beta_end": 0.02}, "other noise levels"),
        ({"num_train_timesteps": 500}, "other noise levels"),
    ],
    ids=["prediction_type", "betas", "timesteps"],
)
def test_a_scheduler_of_another_training_is_refused(clf, config, message):
    pipeline = clf.backend_.pipeline
    expected, before = clf.predict_proba(IMAGES), pipeline.scheduler
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(before.config, **config)
    refuses(clf, "predict", message + ".*new DiffusersBackend and call fit again")
    with pytest.raises(InputValueError, match=message):
        clf.fit(None, ["a cat", "a dog"])
    pipeline.scheduler = diffusers.IPNDMScheduler()  # to sample; it tells nothing of training
    np.testing.assert_array_equal(clf.predict_proba(IMAGES), expected)


def test_adapters_added_with_peft_itself_count(clf):
    config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    clf.backend_.pipeline.unet.add_adapter(config, "mine")
    refuses(clf, "predict", "unet: adapter mine at scale 4 ")
