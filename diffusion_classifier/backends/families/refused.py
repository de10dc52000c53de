"""Pipelines that are refused by name, and why.

Some have a known network and read more than a prompt. An inpainting pipeline computes
p(image | prompt, mask, rest of the image). Classification asks for p(image | prompt). The
text-to-image pipeline of the same components computes that, where there is one: ``from_pipe`` makes
it. A network that was trained to read a mask, a depth map or a second image has more channels than
the latent, and the check of the family then says so.

The errors of others say nothing of p(image | prompt), or no adapter has been written for them.
"""

from __future__ import annotations

MASK = "a mask"
CONTROL = "a control image"
SECOND = "a second image"
DEPTH = "a depth map"
SMALL = "a small image to enlarge"
BOXES = "boxes"
EDITS = "what to change"

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
        SECOND: "StableDiffusionInstructPix2Pix StableDiffusionImageVariation CycleDiffusion",
        EDITS: (
            "SemanticStableDiffusion StableDiffusionAttendAndExcite StableDiffusionModelEditing "
            "StableDiffusionPix2PixZero"
        ),
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
    "Kandinsky5T2IPipeline": {SECOND: "Kandinsky5I2I"},
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


ADAPTER = "add its family with register_family (docs/adapters.md)"
WRAP = "wrap its network with a FunctionBackend (docs/adapters.md)"
INSTEAD = "use a text-to-image model whose network predicts noise, such as Stable Diffusion"
# Why other pipelines are refused and what to do, and their names.
OTHER_KINDS: dict[str, str] = {
    f"its network predicts noise from a prompt, but no adapter has been written yet; {ADAPTER}": (
        "AltDiffusion AltDiffusionImg2Img CogView3Plus Cosmos2TextToImage ErnieImage Ideogram4 "
        "Kandinsky3 Kandinsky3Img2Img Krea2 LDMTextToImage LongCatImage Lumina NucleusMoEImage "
        "PRX PRXPixel VersatileDiffusion VersatileDiffusionTextToImage"
    ),
    "one network draws images and edits others, and no adapter for its prompts has been written "
    f"yet; {ADAPTER}": "BriaFibo2 DreamLite DreamLiteMobile OmniGen UniDiffuser",
    f"it edits an image that it reads, and no text-to-image model is made of it; {INSTEAD}": (
        "BlipDiffusion BlipDiffusionControlNet JoyImageEdit JoyImageEditPlus LongCatImageEdit "
        "PaintByExample VersatileDiffusionDualGuided VersatileDiffusionImageVariation"
    ),
    "the network that draws the image reads the embedding of an image, which another network draws "
    f"from the prompt, so its errors depend on that draw; {INSTEAD}": (
        "Kandinsky KandinskyCombined KandinskyImg2Img KandinskyImg2ImgCombined KandinskyInpaint "
        "KandinskyInpaintCombined KandinskyPrior KandinskyV22 KandinskyV22Combined "
        "KandinskyV22Controlnet KandinskyV22ControlnetImg2Img KandinskyV22Img2Img "
        "KandinskyV22Img2ImgCombined KandinskyV22Inpaint KandinskyV22InpaintCombined "
        "KandinskyV22Prior KandinskyV22PriorEmb2Emb StableUnCLIP StableUnCLIPImg2Img UnCLIP "
        "UnCLIPImageVariation"
    ),
    "the network that reads the prompt draws features of an image, and the encoder that makes them "
    f"of images is no part of the pipeline; {INSTEAD}": (
        "StableCascadeCombined StableCascadeDecoder StableCascadePrior WuerstchenCombined "
        "WuerstchenDecoder WuerstchenPrior"
    ),
    f"a language model draws the tokens that its network reads from the prompt; {INSTEAD}": (
        "GlmImage"
    ),
    f"it draws tokens and predicts no noise; {INSTEAD}": (
        "Amused AmusedImg2Img AmusedInpaint DiffusionGemma LLaDA2 VQDiffusion"
    ),
    "its network was distilled to jump to an image, so its output is no expected noise; use the "
    "model that it was distilled from": "ConsistencyModel SanaSprint SanaSprintImg2Img",
    f"its autoencoder also encodes depth, which images lack; {INSTEAD}": "StableDiffusionLDM3D",
    "it reads neither prompts nor classes, so it cannot tell classes apart; if its network reads a "
    f"class index, {WRAP}": "KarrasVe LDM PNDM RePaint ScoreSdeVe",
    f"it computes an image from another and reads no prompt; {INSTEAD}": (
        "LDMSuperResolution MarigoldDepth MarigoldIntrinsics MarigoldNormals"
    ),
    f"it makes films, not images; {WRAP}, or {INSTEAD}": (
        "Allegro AnimateDiff AnimateDiffControlNet AnimateDiffPAG AnimateDiffSDXL "
        "AnimateDiffSparseControlNet AnimateDiffVideoToVideo AnimateDiffVideoToVideoControlNet "
        "AnyFlow AnyFlowFAR ChronoEdit CogVideoX CogVideoXFunControl CogVideoXImageToVideo "
        "CogVideoXVideoToVideo ConsisID Cosmos2VideoToWorld Cosmos2_5_PredictBase "
        "Cosmos2_5_Transfer Cosmos3Omni CosmosTextToWorld CosmosVideoToWorld EasyAnimate "
        "EasyAnimateControl EasyAnimateInpaint Helios HeliosPyramid HunyuanSkyreelsImageToVideo "
        "HunyuanVideo HunyuanVideo15 HunyuanVideo15ImageToVideo HunyuanVideoFramepack "
        "HunyuanVideoImageToVideo I2VGenXL Kandinsky5I2V Kandinsky5T2V Kandinsky6SR "
        "Kandinsky6TI2VA LTX LTX2 LTX2Condition LTX2DFR LTX2DFRTemporalRefine LTX2HDR "
        "LTX2ImageToVideo LTX2InContext LTX2LatentUpsample LTX2VideoDiffusionDecode LTXCondition "
        "LTXI2VLongMultiPrompt LTXImageToVideo LTXLatentUpsample Latte LucyEdit Mochi MotifVideo "
        "MotifVideoImage2Video PIA SanaImageToVideo SanaVideo SanaWM SkyReelsV2 "
        "SkyReelsV2DiffusionForcing SkyReelsV2DiffusionForcingImageToVideo "
        "SkyReelsV2DiffusionForcingVideoToVideo SkyReelsV2ImageToVideo StableVideoDiffusion "
        "TextToVideoSD TextToVideoZero TextToVideoZeroSDXL VideoToVideoSD Wan WanAnimate "
        "WanImageToVideo WanVACE WanVideoToVideo"
    ),
    f"it makes sounds, not images; {WRAP}": (
        "AceStep AudioDiffusion AudioLDM AudioLDM2 DanceDiffusion LongCatAudioDiT MusicLDM "
        "SpectrogramDiffusion StableAudio StableAudio3 StableAudio3AudioToAudio StableAudio3Inpaint"
    ),
    f"it makes bodies in space, not images; {WRAP}": "RFD4Proteina ShapE ShapEImg2Img",
    "its networks are ONNX files, whose answers only another library computes; load the model of "
    "PyTorch": (
        "OnnxStableDiffusion OnnxStableDiffusionImg2Img OnnxStableDiffusionInpaint "
        "OnnxStableDiffusionUpscale StableDiffusionOnnx"
    ),
}
OTHERS: dict[str, str] = {
    f"{name}Pipeline": why for why, names in OTHER_KINDS.items() for name in names.split()
}


def reason(class_name: str) -> str | None:
    """Say why a pipeline of this name is refused and what to do; None if it is not listed.

    Examples
    --------
    >>> print(reason("FluxFillPipeline"))
    besides the prompt it reads a mask; load it with diffusers and pass \
DiffusersBackend(FluxPipeline.from_pipe(pipeline)), or use the text-to-image model
    >>> print(reason("SanaSprintPipeline"))
    its network was distilled to jump to an image, so its output is no expected noise; use the \
model that it was distilled from
    """
    if class_name.endswith("ModularPipeline"):
        return "it is modular, in other files; load the same model as a pipeline that is not"
    if class_name not in REFUSED:
        return OTHERS.get(class_name)
    what, text_to_image = REFUSED[class_name]
    return (
        f"besides the prompt it reads {what}; load it with diffusers and pass "
        f"DiffusersBackend({text_to_image}.from_pipe(pipeline)), or use the text-to-image model"
    )
