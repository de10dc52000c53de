"""Each check of a family catches the fault that it is named after, and nothing else does."""

import pytest
import torch

from diffusion_classifier.backends import Conditioning
from diffusion_classifier.backends.families import FAMILIES, encode_text
from diffusion_classifier.backends.families.language import CogView4, HunyuanImage, ZImage
from diffusion_classifier.backends.families.mmdit import StableDiffusion3
from diffusion_classifier.backends.families.pixel import DeepFloydIF
from diffusion_classifier.backends.families.unet import StableDiffusion
from diffusion_classifier.errors import InputTypeError, InputValueError
from diffusion_classifier.noise import NoiseSchedule
from diffusion_classifier.testing import BACKEND_CHECKS, FAMILY_CHECKS, check_family
from tests.support.family_cases import CASES
from tests.support.own_calls import options_of


class PatchesOfOne(StableDiffusion3):
    def patch_size(self, pipeline):
        return 1  # what a configuration without patch_size says


class OtherSchedule(StableDiffusion):
    def schedule(self, pipeline):
        signal = pipeline.scheduler.alphas_cumprod.double().clone()
        signal[:900] **= 0.9
        return NoiseSchedule.from_alphas_cumprod(signal)


class WrongSign(StableDiffusion):
    def forward(self, pipeline, z, t, condition):
        return -super().forward(pipeline, z, t, condition)


class FlowOfWrongSign(StableDiffusion3):
    def forward(self, pipeline, z, t, condition):
        return -super().forward(pipeline, z, t, condition)


class Unscaled(StableDiffusion):
    def encode_images(self, pipeline, images):
        return super().encode_images(pipeline, images) / pipeline.vae.config.scaling_factor


class CutTimes(StableDiffusion):
    def forward(self, pipeline, z, t, condition):
        return super().forward(pipeline, z, torch.where(t < 999, t // 10 * 10, t), condition)


class PaddedTogether(CogView4):
    def encode_prompts(self, pipeline, prompts):
        states, _ = encode_text(pipeline, prompts, do_classifier_free_guidance=False)
        return Conditioning(states=states, n_tokens=torch.full((len(prompts),), states.shape[1]))


class TwoImagesPerPrompt(StableDiffusion):
    def encode_prompts(self, pipeline, prompts):
        states, _ = pipeline.encode_prompt(
            prompts, pipeline._execution_device, 2, do_classifier_free_guidance=False
        )
        return Conditioning(encoder_hidden_states=states)


class ListOverwritten(ZImage):
    def encode_prompts(self, pipeline, prompts):
        condition = super().encode_prompts(pipeline, prompts)
        prompts.clear()
        return condition


class WithoutSize(ZImage):
    def image_size(self, pipeline):
        return super(ZImage, self).image_size(pipeline)


class OddSides(DeepFloydIF):
    def patch_size(self, pipeline):
        return 1


class OneTokenTooFew(HunyuanImage):
    def encode_prompts(self, pipeline, prompts):
        tensors = super().encode_prompts(pipeline, prompts).tensors
        cut = ("encoder_hidden_states", "encoder_attention_mask")
        return Conditioning(
            **{k: part[:, :-1] if k in cut else part for k, part in tensors.items()}
        )


BROKEN = {
    "check_sizes": ("sd3", PatchesOfOne),
    "check_noising": ("sd", OtherSchedule),
    "check_own_call": ("sd", CutTimes),
    "check_own_errors": ("sd", WrongSign),
    "check_round_trip": ("sd", Unscaled),
}


def check(case, family, **options):
    pipeline = CASES[case].build()
    check_family(pipeline, family(), **options_of(CASES[case], pipeline) | options)


def test_every_check_of_families_alone_has_a_family_that_fails_it():
    assert {c.__name__ for c in FAMILY_CHECKS} == {c.__name__ for c in BACKEND_CHECKS} | set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_and_no_other(name):
    case, family = BROKEN[name]
    before = list(FAMILIES)
    with pytest.raises(AssertionError, match=f"^{name}: "):
        check(case, family)
    check(case, family, skip=[name])
    assert before == FAMILIES


@pytest.mark.parametrize(
    ("case", "family", "message"),
    [
        ("cogview4", PaddedTogether, "^check_company: errors of 'a cat' .* encode prompts one"),
        ("sd", TwoImagesPerPrompt, "^check_conditions: .* 8 conditions for 4 .*per_prompt=1"),
        ("z_image", WithoutSize, "^check_sizes: .*sample_size.*return what the pipeline's own"),
        ("sd3", FlowOfWrongSign, "^check_own_errors: .* the sign or time of forward"),
        ("deepfloyd", OddSides, "^check_sizes: images of 5 x 7 pixels .* patch_size is 1"),
    ],
)  # fmt: skip
def test_known_pitfalls_are_named(case, family, message):
    with pytest.raises(AssertionError, match=message):
        check(case, family)


def test_tokens_that_a_mask_hides_may_be_left_out_and_no_others():
    alone = [check.__name__ for check in BACKEND_CHECKS]
    check("hunyuan_image", HunyuanImage, skip=alone)
    with pytest.raises(AssertionError, match=r"^check_own_call: "):
        check("hunyuan_image", OneTokenTooFew, skip=alone)


def test_prompts_that_an_adapter_changes_are_its_own_copy():
    check("z_image", ListOverwritten)


def test_guidance_that_is_left_on_is_named():
    with pytest.raises(AssertionError, match=r"^check_own_call: .*guidance"):
        check("sd", StableDiffusion, call={"guidance_scale": 7.5})


def test_what_the_check_is_given_is_checked():
    with pytest.raises(InputTypeError, match="is not a Family; give an instance"):
        check_family(CASES["sd"].build(), StableDiffusion)
    pipeline = CASES["class_unet"].build()
    options = options_of(CASES["class_unet"], pipeline) | {"generate": None}
    with pytest.raises(AssertionError, match=r"takes neither prompts nor class_labels; give"):
        check_family(pipeline, **options)
    with pytest.raises(InputValueError, match="skip='check_speed' is no check"):
        check("sd", StableDiffusion, skip=["check_speed"])
