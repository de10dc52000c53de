"""Pipelines whose network may be a known one, but which read more than a prompt.

An inpainting pipeline computes p(image | prompt, mask, rest of the image). Classification asks for
p(image | prompt). The text-to-image pipeline of the same components computes that, where there is
one: ``from_pipe`` makes it. A network that was trained to read a mask, a depth map or a second
image has more channels than the latent, and the check of the family then says so.
"""

from __future__ import annotations

MASK = "a mask"
CONTROL = "a control image"
SECOND = "a second image"
DEPTH = "a depth map"
SMALL = "a small image to enlarge"
BOXES = "boxes"

# For each text-to-image pipeline, what else others of its components read, and their names.
OTHER_INPUTS: dict[str, dict[str, str]] = {
    "StableDiffusionPipeline": {
        MASK: "StableDiffusionInpaint StableDiffusionPAGInpaint StableDiffusionDiffEdit",
        CONTROL: (
            "StableDiffusionControlNet StableDiffusionControlNetImg2Img "
            "StableDiffusionControlNetInpaint StableDiffusionControlNetPAG "
            "StableDiffusionControlNetPAGInpaint StableDiffusionControlNetXS "
            "StableDiffusionAdapter"
        ),
        SECOND: "StableDiffusionInstructPix2Pix StableDiffusionImageVariation",
        DEPTH: "StableDiffusionDepth2Img",
        SMALL: "StableDiffusionUpscale StableDiffusionLatentUpscale",
        BOXES: "StableDiffusionGLIGEN StableDiffusionGLIGENTextImage",
    },
    "StableDiffusionXLPipeline": {
        MASK: "StableDiffusionXLInpaint StableDiffusionXLPAGInpaint",
        CONTROL: (
            "StableDiffusionXLControlNet StableDiffusionXLControlNetImg2Img "
            "StableDiffusionXLControlNetInpaint StableDiffusionXLControlNetPAG "
            "StableDiffusionXLControlNetPAGImg2Img StableDiffusionXLControlNetUnion "
            "StableDiffusionXLControlNetUnionImg2Img StableDiffusionXLControlNetUnionInpaint "
            "StableDiffusionXLControlNetXS StableDiffusionXLAdapter"
        ),
        SECOND: "StableDiffusionXLInstructPix2Pix",
    },
    "StableDiffusion3Pipeline": {
        MASK: "StableDiffusion3Inpaint",
        CONTROL: "StableDiffusion3ControlNet StableDiffusion3ControlNetInpainting",
    },
    "FluxPipeline": {
        MASK: "FluxInpaint FluxFill FluxKontextInpaint",
        CONTROL: (
            "FluxControl FluxControlImg2Img FluxControlInpaint FluxControlNet "
            "FluxControlNetImg2Img FluxControlNetInpaint"
        ),
        SECOND: "FluxPriorRedux VisualCloze VisualClozeGeneration",
    },
    "QwenImagePipeline": {
        MASK: "QwenImageInpaint QwenImageEditInpaint",
        CONTROL: "QwenImageControlNet QwenImageControlNetInpaint",
        SECOND: "QwenImageEdit QwenImageEditPlus QwenImageLayered",
    },
    "HunyuanDiTPipeline": {CONTROL: "HunyuanDiTControlNet"},
    "SanaPipeline": {CONTROL: "SanaControlNet"},
    "ZImagePipeline": {
        MASK: "ZImageInpaint ZImageControlNetInpaint",
        CONTROL: "ZImageControlNet",
        SECOND: "ZImageOmni",
    },
    "Flux2KleinPipeline": {MASK: "Flux2KleinInpaint"},
    "ChromaPipeline": {MASK: "ChromaInpaint"},
    "CogView4Pipeline": {CONTROL: "CogView4Control"},
    "HunyuanImagePipeline": {SMALL: "HunyuanImageRefiner"},
    "BriaFiboPipeline": {SECOND: "BriaFiboEdit"},
    "IFPipeline": {
        MASK: "IFInpainting IFInpaintingSuperResolution",
        SMALL: "IFSuperResolution IFImg2ImgSuperResolution",
    },
}
REFUSED: dict[str, tuple[str, str]] = {
    f"{name}Pipeline": (what, text_to_image)
    for text_to_image, others in OTHER_INPUTS.items()
    for what, names in others.items()
    for name in names.split()
}


def reason(class_name: str) -> str | None:
    """Say why a pipeline of this name is refused and what to do; None if it is not listed.

    Examples
    --------
    >>> print(reason("FluxFillPipeline"))
    besides the prompt it reads a mask; load it with diffusers and pass \
DiffusersBackend(FluxPipeline.from_pipe(pipeline)), or use the text-to-image model
    """
    if class_name not in REFUSED:
        return None
    what, text_to_image = REFUSED[class_name]
    return (
        f"besides the prompt it reads {what}; load it with diffusers and pass "
        f"DiffusersBackend({text_to_image}.from_pipe(pipeline)), or use the text-to-image model"
    )
