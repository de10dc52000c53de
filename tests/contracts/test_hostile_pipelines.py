"""Pipelines with step caches, further inputs, other parts or offload: refused, or as without."""

import diffusers
import numpy as np
import pytest
import torch

from diffusion_classifier.backends import DiffusersBackend
from diffusion_classifier.errors import InputValueError
from tests.support import other_pipelines
from tests.support.fitted import IMAGES, fitted, refuses
from tests.support.pipelines import conditional_unet, saved, tiny_sd, tiny_sdxl

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "errors")


@pytest.fixture
def clf():
    return fitted(DiffusersBackend(tiny_sd()))


# ------------------------------------------------------------------ caches of steps

ATTENTION = {"spatial_attention_block_skip_range": 2, "current_timestep_callback": lambda: 500}
CACHES = {
    "pyramid": diffusers.PyramidAttentionBroadcastConfig(
        **ATTENTION, spatial_attention_block_identifiers=("transformer_blocks",)
    ),
    "faster": diffusers.FasterCacheConfig(
        **ATTENTION,
        spatial_attention_block_identifiers=("transformer_blocks",),
        unconditional_batch_skip_range=2,
        is_guidance_distilled=True,
    ),
    "first_block": diffusers.FirstBlockCacheConfig(threshold=0.2),
    "mag": diffusers.MagCacheConfig(num_inference_steps=4, mag_ratios=torch.ones(4)),
    "taylor": diffusers.TaylorSeerCacheConfig(),
}


@pytest.fixture(scope="module")
def flux():
    clf = fitted(DiffusersBackend(other_pipelines.tiny_flux()))
    return clf.set_params(image_size=16).fit(None, ["a cat", "a dog"])


@pytest.mark.parametrize("name", CACHES)
def test_a_step_cache_is_refused_until_it_is_switched_off(flux, name):
    transformer, expected = flux.backend_.pipeline.transformer, flux.predict_proba(IMAGES)
    transformer.enable_cache(CACHES[name])
    message = r"transformer has a step cache \(.*earlier calls.*pipeline\.transformer\.disable_cach"
    try:
        assert all(refuses(flux, method, message) for method in ("predict", "errors"))
        with pytest.raises(InputValueError, match=message):
            flux.fit(None, ["a cat", "a dog"])
    finally:
        transformer.disable_cache()
    np.testing.assert_allclose(flux.predict_proba(IMAGES), expected, rtol=1e-5)


def test_a_step_cache_applied_as_hooks_is_refused_until_it_is_removed(clf):
    unet, expected = clf.backend_.pipeline.unet, clf.predict_proba(IMAGES)
    config = diffusers.PyramidAttentionBroadcastConfig(
        **ATTENTION, spatial_attention_block_identifiers=("attentions",)
    )
    diffusers.apply_pyramid_attention_broadcast(unet, config)
    message = r"unet has a step cache \(pyramid_attention_broadcast\).*remove_hook\('pyramid_att"
    refuses(clf, "predict", message)
    with pytest.raises(InputValueError, match=message):
        fitted(DiffusersBackend(clf.backend_.pipeline))
    registry = diffusers.hooks.HookRegistry.check_if_exists_or_initialize(unet)
    registry.remove_hook("pyramid_attention_broadcast", recurse=True)
    np.testing.assert_allclose(clf.predict_proba(IMAGES), expected, rtol=1e-5)


def test_hooks_that_only_say_where_a_network_computes_are_honoured(clf):
    expected = clf.predict_proba(IMAGES)
    clf.backend_.pipeline.unet.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    np.testing.assert_allclose(clf.predict_proba(IMAGES), expected, rtol=1e-5)


# ------------------------------------------------------------------ more inputs than a prompt


def load_ip_adapter(pipeline):
    projection = {
        "proj.weight": torch.randn(4 * 16, 8),
        "proj.bias": torch.zeros(4 * 16),
        "norm.weight": torch.ones(16),
        "norm.bias": torch.zeros(16),
    }
    attention, key = {}, 1
    for name in pipeline.unet.attn_processors:
        if "attn2" in name:
            width = pipeline.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                attention[f"{key}.{part}.weight"] = torch.randn(width, 16)
            key += 2
    state = {"image_proj": projection, "ip_adapter": attention}
    pipeline.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)


def test_an_ip_adapter_loaded_later_is_refused_until_it_is_unloaded(clf):
    pipeline, expected = clf.backend_.pipeline, clf.predict_proba(IMAGES)
    load_ip_adapter(pipeline)
    message = r"unet has an IP-Adapter.*reads an image.*pipeline\.unload_ip_adapter\(\)"
    assert all(refuses(clf, method, message) for method in METHODS)
    with pytest.raises(InputValueError, match=message):
        fitted(DiffusersBackend(pipeline))
    pipeline.unload_ip_adapter()
    np.testing.assert_allclose(clf.predict_proba(IMAGES), expected, rtol=1e-5)


def test_an_inpainting_network_put_in_after_fit_is_refused(clf):
    clf.backend_.pipeline.unet = conditional_unet(in_channels=9)
    refuses(clf, "predict", "takes 9 channels and the autoencoder gives 4.*inpainting")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"projection_class_embeddings_input_dim": 5 * 8 + 8}, "reads 5 numbers.*refiner"),
        ({"cross_attention_dim": 16}, "reads text of width 16.*encoders give 32"),
    ],
    ids=["size", "text"],
)
def test_a_refiners_network_is_refused(config, message):
    pipeline = tiny_sdxl()
    pipeline.unet = conditional_unet(**{**pipeline.unet.config, **config})
    with pytest.raises(InputValueError, match=message):
        DiffusersBackend(pipeline)


# ------------------------------------------------------------------ offload


def test_sequential_offload_without_an_accelerator_is_refused(clf, tmp_path, monkeypatch):
    pipeline, expected = clf.backend_.pipeline, clf.predict_proba(IMAGES)
    pipeline.enable_sequential_cpu_offload(device="cpu")
    message = r"offloaded layer by layer.*needs an accelerator.*remove_all_hooks\(\)"
    refuses(clf, "predict", message)
    with pytest.raises(InputValueError, match=message):
        fitted(DiffusersBackend(pipeline))
    pipeline.remove_all_hooks()
    np.testing.assert_allclose(clf.predict_proba(IMAGES), expected, rtol=1e-5)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without one")
@pytest.mark.parametrize("kind", ["model", "sequential"])
def test_offload_when_loading_needs_an_accelerator(kind, tmp_path):
    folder = saved(tiny_sd(), tmp_path)
    with pytest.raises(InputValueError, match=f"offload='{kind}' needs an accelerator.*none here"):
        DiffusersBackend.from_pretrained(folder, offload=kind)


def test_components_that_are_not_used_are_not_asked_for(tmp_path):
    folder = saved(tiny_sd(), tmp_path)
    with pytest.raises(InputValueError, match=r"safety_checker.*not used.*leave it out"):
        DiffusersBackend.from_pretrained(folder, safety_checker=torch.nn.Linear(1, 1))
    assert DiffusersBackend.from_pretrained(folder, safety_checker=None).pipeline is not None
