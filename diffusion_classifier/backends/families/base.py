"""Base adapters for families of diffusers pipelines.

Stable Diffusion, SDXL, Flux, DiT, ... have the same structure: components that encode images and
prompts, a denoiser, and a scheduler that knows how noise was added in training. A :class:`Family`
says where these are in a pipeline and how to call them, and
:class:`~diffusion_classifier.backends.DiffusersBackend` does the rest. Families have no state, so
every method receives the pipeline. The defaults fit variance-preserving latent diffusion models
with one text encoder and a transformer. A new family overrides what differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...noise.prediction import PredictionTypeName
from ...noise.schedule import NoiseSchedule
from ...utils.constraints import Integers, Sequences, check
from ..base import Conditioning
from .parts.autoencoder import ENCODING, full_precision, mode, normalised, sliced
from .parts.class_names import find_class

SCHEDULER_TYPES = ("epsilon", "v_prediction", "sample")
NO_SIGNAL = 2**-12  # last alpha of some schedulers whose schedule should end at alpha = 0
SAMPLE_SIZE = Integers(1) | Sequences(Integers(1), 2) | None
TWO_ENCODERS = ("text_encoder", "text_encoder_2")
TWO_TOKENIZERS = ("tokenizer", "tokenizer_2")


class Family(ABC):
    """Adapter for a family of diffusers pipelines.

    Attributes
    ----------
    pipelines : tuple of str
        Names of the diffusers pipeline classes.
    components : tuple of str
        Components that classification uses. No other component is loaded.
    text_encoders : tuple of str
        Large components that only ``encode_prompts`` uses, so that they may be freed afterwards.
    optional : tuple of str
        Components that a pipeline may lack.
    always : tuple of str
        Components that the pipeline's class reads when it is made, so that they are loaded even
        where only others are wanted.
    other_classes : mapping of str to tuple of str
        Names of classes of diffusers or transformers that a component may have besides those of
        the pipeline's own signature. A folder that names any other class is not loaded.
    libraries : mapping of str to str
        Modules of diffusers whose classes components may have, by the name that a folder gives them
        besides "diffusers" and "transformers".
    denoiser : str
        Name of the component that predicts the noise.
    text_conditional : bool
        Whether the network reads prompts as text rather than class indices.
    unconditional_prompt : str or None
        The prompt for unconditional prediction; None if the network has none.
    default_template : str
        Template of the prompts when the user gives none.
    half_dtype : torch.dtype
        Dtype of ``dtype="auto"`` on CUDA. float16 is the more exact of the two; networks whose
        activations exceed its range need bfloat16.
    """

    pipelines: tuple[str, ...]
    components: tuple[str, ...] = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler")
    text_encoders: tuple[str, ...] = ("text_encoder",)
    optional: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    libraries: Mapping[str, str] = {}
    other_classes: Mapping[str, tuple[str, ...]] = {
        "vae": ("AutoencoderTiny", "AsymmetricAutoencoderKL", "ConsistencyDecoderVAE")
    }
    denoiser: str = "transformer"
    text_conditional: bool = True
    unconditional_prompt: str | None = ""
    default_template: str = "a photo of a {}"
    half_dtype: torch.dtype = torch.float16

    def check(self, pipeline: Any) -> None:
        """Raise InputValueError if the denoiser needs inputs that this family does not supply."""
        config = pipeline.vae.config
        wanted, given = self.latent_channels(pipeline), config.get("z_dim")  # of films
        if given is None:
            given = config.latent_channels
        if wanted != given:
            raise InputValueError(
                f"the {self.denoiser} takes {wanted} channels and the autoencoder gives {given}: "
                "the model also needs a mask, a depth map or a second image (inpainting, depth or "
                "editing models); use the text-to-image model instead."
            )

    def latent_channels(self, pipeline: Any) -> int:
        """Return the number of latent channels that the denoiser reads."""
        return getattr(pipeline, self.denoiser).config.in_channels

    def learned_variance(self, pipeline: Any) -> bool:
        """Return whether the denoiser also predicts the interpolation of reverse-step variances."""
        if pipeline.scheduler.config.get("variance_type") == "learned":
            return False  # the denoiser predicts the log-variance itself, not a coefficient
        channels = getattr(pipeline, self.denoiser).config.get("out_channels")
        return channels == 2 * self.latent_channels(pipeline)

    @abstractmethod
    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """Encode a few prompts, padded as the pipeline pads them."""

    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Run the denoiser on noised latents [R, ...], timesteps [R] and R conditions.

        The output is the target of ``prediction_type`` in
        :mod:`diffusion_classifier.noise.prediction`. Channels beyond those of ``z`` are a learned
        variance.
        """
        return call_denoiser(getattr(pipeline, self.denoiser), z, t, condition.tensors)

    def prediction_type(self, pipeline: Any) -> PredictionTypeName:
        """Read from the scheduler's configuration what the denoiser was trained to predict."""
        kind = pipeline.scheduler.config.get("prediction_type", "epsilon")
        if kind not in SCHEDULER_TYPES:
            raise InputValueError(
                f"prediction_type={kind!r} of {type(pipeline.scheduler).__name__} is not yet "
                f"supported for {type(pipeline).__name__}, only {', '.join(SCHEDULER_TYPES)}; wrap "
                "the network with a FunctionBackend."
            )
        return kind

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        """Return the noise schedule of training, which does not depend on the scheduler's class."""
        return NoiseSchedule.from_alphas_cumprod(alphas_cumprod(pipeline.scheduler))

    def image_size(self, pipeline: Any) -> tuple[int, int] | None:
        """Return height and width of training images; None if the configuration does not say.

        Raises
        ------
        InputValueError
            If the configuration gives no positive sides.
        """
        size = getattr(pipeline, self.denoiser).config.sample_size
        check(f"config.json of the {self.denoiser}: sample_size", size, SAMPLE_SIZE)
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        factor = self.downsampling(pipeline)
        return height * factor, width * factor

    def downsampling(self, pipeline: Any) -> int:
        """Return the side of an image divided by the side of its latent."""
        return pipeline.vae_scale_factor

    def patch_size(self, pipeline: Any) -> int:
        """Return the side, in latent pixels, of the denoiser's patches."""
        return getattr(pipeline, self.denoiser).config.get("patch_size", 1)

    def divisor(self, pipeline: Any) -> int:
        """Return what divides the sides of images, whose latents are whole patches."""
        return self.downsampling(pipeline) * self.patch_size(pipeline)

    def check_sides(self, pipeline: Any, images: Tensor) -> None:
        """Raise InputValueError if the latents of images do not divide into whole patches."""
        factor = self.divisor(pipeline)
        if any(side % factor for side in images.shape[-2:]):
            raise InputValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, but this model "
                f"needs sides divisible by {factor}; set image_size to multiples of {factor}."
            )

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        """Return the mode of the autoencoder's posterior, scaled as in training, in float32."""
        self.check_sides(pipeline, images)
        vae = pipeline.vae
        with ENCODING, full_precision(vae), sliced(vae, images):
            latents = self.posterior_mode(vae, images.to(pipeline._execution_device, vae.dtype))
        return normalised(vae, latents.float())

    def posterior_mode(self, vae: Any, images: Tensor) -> Tensor:
        """Return the latents of highest posterior density, before scaling."""
        return mode(vae.encode(images))


class ClassConditionalFamily(Family):
    """Adapter for networks that read a class index. A prompt is the name or index of a class."""

    text_encoders = ()
    text_conditional = False
    unconditional_prompt: str | None = None
    default_template = "{}"

    @abstractmethod
    def n_classes(self, pipeline: Any) -> int:
        """Return the number of classes that the network was trained on."""

    def class_names(self, pipeline: Any) -> dict[str, set[int]]:
        """Map each name to the indices of its classes; empty if classes have no names."""
        return {}

    def class_index(self, pipeline: Any, prompt: str, names: dict[str, set[int]]) -> int:
        """Return the index of the class that a prompt names."""
        return find_class(prompt, names, self.n_classes(pipeline))

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        names = self.class_names(pipeline)
        indices = [self.class_index(pipeline, prompt, names) for prompt in prompts]
        return Conditioning(class_labels=torch.tensor(indices, device=pipeline._execution_device))


class FlowFamily(Family):
    """Adapter for networks trained by rectified flow (Liu et al., arXiv 2209.03003).

    Schedulers shift the grid of timesteps for sampling. The forward process in training has no
    such shift: its noise level is the time itself.
    """

    def prediction_type(self, pipeline: Any) -> PredictionTypeName:
        return "flow"

    def learned_variance(self, pipeline: Any) -> bool:
        return False  # a flow has no reverse step

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        return NoiseSchedule.flow(self.n_timesteps(pipeline))

    def n_timesteps(self, pipeline: Any) -> int:
        """Return T, the number of timesteps between image and noise."""
        return pipeline.scheduler.config.num_train_timesteps


def call_denoiser(
    network: Any, z: Tensor, time: Tensor, tensors: dict[str, Tensor], **options: Any
) -> Tensor:
    """Call a denoiser on latents ``z``, cast to its dtype, and return its output.

    ``time`` is passed as ``timestep``, ``tensors`` and ``options`` as further keyword arguments.
    """
    z = z.to(network.dtype)
    return network(z, timestep=time, **tensors, **options, return_dict=False)[0]


def flow_time(t: Tensor) -> Tensor:
    """Convert integer timesteps to the time ``sigma * T`` that flow networks read."""
    return t + 0.5


def alphas_cumprod(scheduler: Any) -> Tensor:
    """Return ``alpha^2`` of a variance-preserving scheduler of any class, float64, [T].

    With ``rescale_betas_zero_snr`` the last value is 0 (Lin et al., arXiv 2305.08891), although
    some schedulers stop just above 0 to avoid a division by zero, and some ignore the option.
    """
    if getattr(scheduler, "alphas_cumprod", None) is None:
        name = type(scheduler).__name__
        advice = (
            "replace it: "
            "pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)."
        )
        if name.startswith("FlowMatch"):  # another scheduler would not help
            advice = (
                "this network was trained by flow matching, unlike others of its pipeline class; "
                "wrap it with a FunctionBackend."
            )
        raise InputValueError(
            f"{name} does not say how noise was added in training (it has no alphas_cumprod); "
            f"{advice}"
        )
    betas = scheduler.betas
    if betas.ndim != 1 or not len(betas):
        raise InputValueError(
            f"the betas of {type(scheduler).__name__} have shape {tuple(betas.shape)}; they must "
            "be a list of one number per timestep: correct trained_betas in the scheduler's "
            "configuration."
        )
    wrong = ~((betas > 0) & (betas < 1))
    wrong[-1:] &= betas[-1:] != 1  # a last timestep without signal
    if wrong.any():
        t = int(wrong.int().argmax())
        raise InputValueError(
            f"betas[{t}]={betas[t].item():g} of {type(scheduler).__name__} must be above 0 and "
            "below 1: it is the share of noise added at that timestep; correct beta_start, "
            "beta_end or trained_betas in the scheduler's configuration."
        )
    alpha = scheduler.alphas_cumprod.cpu().double().sqrt()
    if scheduler.config.get("rescale_betas_zero_snr", False):
        end = alpha[-1].item() if alpha[-1] > NO_SIGNAL else 0.0
        alpha = (alpha - end) * alpha[0] / (alpha[0] - end)
        alpha[-1] = 0.0
    return alpha.square()
