"""What differs between families of diffusers pipelines, as one small adapter each.

Stable Diffusion, SDXL, Flux, DiT, ... share a shape: components that encode images and prompts,
a denoiser, and a scheduler that knows how noise was added in training. A :class:`Family` says
where these are in a pipeline; :class:`~diffusion_classifier.backends.DiffusersBackend` does the
rest. Families have no state: the pipeline is passed to every method. The defaults here serve
latent, variance-preserving models of one text encoder and a transformer; a new family overrides
what it has otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ...errors import InputValueError
from ...noise.schedule import NoiseSchedule
from ..base import Conditioning
from .autoencoder import ENCODING, full_precision, normalised, sliced
from .class_names import find_class

SCHEDULER_TYPES = ("epsilon", "v_prediction", "sample")
NO_SIGNAL = 2**-12  # alpha at which some schedulers end a schedule that should end at 0
TWO_ENCODERS = ("text_encoder", "text_encoder_2")
TWO_TOKENIZERS = ("tokenizer", "tokenizer_2")


class Family(ABC):
    """Adapter for the diffusers pipelines that one code path serves.

    Attributes
    ----------
    pipelines : tuple of str
        Names of the diffusers pipeline classes.
    components : tuple of str
        Components that classification uses; no other is ever loaded.
    text_encoders : tuple of str
        Those components that only ``encode_prompts`` uses and that are large.
    optional : tuple of str
        Those components that a pipeline may lack.
    denoiser : str
        The component that predicts noise.
    text_conditional : bool
        Whether prompts are text, not names of classes.
    unconditional_prompt : str or None
        The prompt that stands for no condition, as guidance needs one; None if there is none.
    default_template : str
        Prompt of a label when the user gives none.
    """

    pipelines: tuple[str, ...]
    components: tuple[str, ...] = ("vae", "text_encoder", "tokenizer", "transformer", "scheduler")
    text_encoders: tuple[str, ...] = ("text_encoder",)
    optional: tuple[str, ...] = ()
    denoiser: str = "transformer"
    text_conditional: bool = True
    unconditional_prompt: str | None = ""
    default_template: str = "a photo of a {}"

    def check(self, pipeline: Any) -> None:
        """Raise ValueError if a network needs inputs that this family does not give it."""
        wanted, given = self.latent_channels(pipeline), pipeline.vae.config.latent_channels
        if wanted != given:
            raise InputValueError(
                f"the {self.denoiser} takes {wanted} channels and the autoencoder gives {given}: "
                "it also wants a mask, a depth map or a second image (inpainting, depth or "
                "editing models); use the text-to-image model instead."
            )

    def latent_channels(self, pipeline: Any) -> int:
        """Channels of the latents that the denoiser reads."""
        return getattr(pipeline, self.denoiser).config.in_channels

    def learned_variance(self, pipeline: Any) -> bool:
        """Whether the denoiser also predicts where a reverse step's variance is in its range."""
        if pipeline.scheduler.config.get("variance_type") == "learned":
            return False  # the variance itself (its logarithm), of another bound
        channels = getattr(pipeline, self.denoiser).config.get("out_channels")
        return channels == 2 * self.latent_channels(pipeline)

    @abstractmethod
    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """Conditions of a few prompts, padded as the pipeline pads them."""

    @abstractmethod
    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """The denoiser's output, a target of :mod:`diffusion_classifier.noise.prediction`.

        Channels beyond those of ``z`` are a learned variance.
        """

    def prediction_type(self, pipeline: Any) -> str:
        """What the denoiser was trained to predict, from the scheduler's configuration."""
        kind = pipeline.scheduler.config.get("prediction_type", "epsilon")
        if kind not in SCHEDULER_TYPES:
            raise InputValueError(
                f"prediction_type={kind!r} of {type(pipeline.scheduler).__name__} is not yet "
                f"supported for {type(pipeline).__name__}, only {', '.join(SCHEDULER_TYPES)}."
            )
        return kind

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        """The noise levels of training, which do not depend on the scheduler's class."""
        return NoiseSchedule.from_alphas_cumprod(alphas_cumprod(pipeline.scheduler))

    def image_size(self, pipeline: Any) -> tuple[int, int] | None:
        """Height and width of training images; None if the configuration does not say."""
        size = getattr(pipeline, self.denoiser).config.sample_size
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        factor = self.downsampling(pipeline)
        return height * factor, width * factor

    def downsampling(self, pipeline: Any) -> int:
        """Pixels of an image to one of its latent, along a side."""
        return pipeline.vae_scale_factor

    def patch_size(self, pipeline: Any) -> int:
        """Latent pixels that the denoiser reads as one, along a side."""
        return getattr(pipeline, self.denoiser).config.get("patch_size", 1)

    def check_sides(self, pipeline: Any, images: Tensor) -> None:
        """Raise ValueError if an image cannot be cut into whole patches of latents."""
        factor = self.downsampling(pipeline) * self.patch_size(pipeline)
        if any(side % factor for side in images.shape[-2:]):
            raise InputValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, but this model "
                f"needs sides divisible by {factor}: set image_size to multiples of it."
            )

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        """Mode of the autoencoder's posterior, scaled as in training; float32."""
        self.check_sides(pipeline, images)
        vae = pipeline.vae
        with ENCODING, full_precision(vae), sliced(vae, images):
            latents = self.posterior_mode(vae, images.to(pipeline._execution_device, vae.dtype))
        return normalised(vae, latents.float())

    def posterior_mode(self, vae: Any, images: Tensor) -> Tensor:
        """Latents that the autoencoder finds most probable."""
        encoded = vae.encode(images)
        # a deep-compression autoencoder has no posterior
        return encoded.latent if "latent" in encoded else encoded.latent_dist.mode()


class ClassConditionalFamily(Family):
    """Adapter for networks that read the index of a class; a prompt is its name or index."""

    text_encoders = ()
    text_conditional = False
    unconditional_prompt: str | None = None
    default_template = "{}"

    @abstractmethod
    def n_classes(self, pipeline: Any) -> int:
        """How many classes the network knows."""

    def class_names(self, pipeline: Any) -> dict[str, set[int]]:
        """The classes that go by each name; empty if only indices are known."""
        return {}

    def class_index(self, pipeline: Any, prompt: str, names: dict[str, set[int]]) -> int:
        """Index of the class that a prompt stands for."""
        return find_class(prompt, names, self.n_classes(pipeline))

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        names = self.class_names(pipeline)
        indices = [self.class_index(pipeline, prompt, names) for prompt in prompts]
        return Conditioning(class_labels=torch.tensor(indices, device=pipeline._execution_device))


class FlowFamily(Family):
    """Adapter for networks trained by rectified flow (Liu et al., arXiv 2209.03003).

    Schedulers shift the grid of timesteps on which images are sampled; the forward process of
    training knows no such shift: its noise level is the time itself.
    """

    def prediction_type(self, pipeline: Any) -> str:
        return "flow"

    def learned_variance(self, pipeline: Any) -> bool:
        return False  # a flow has no reverse step

    def schedule(self, pipeline: Any) -> NoiseSchedule:
        return NoiseSchedule.flow(self.n_timesteps(pipeline))

    def n_timesteps(self, pipeline: Any) -> int:
        """How many the time between image and noise is cut into."""
        return pipeline.scheduler.config.num_train_timesteps


def flow_time(t: Tensor) -> Tensor:
    """What flow networks take for integer timesteps ``t``: ``sigma * T`` of the schedule."""
    return t + 0.5


def alphas_cumprod(scheduler: Any) -> Tensor:
    """``alpha^2`` of a variance-preserving scheduler of any class, float64, of shape (T,).

    With ``rescale_betas_zero_snr`` the last is 0 (Lin et al., arXiv 2305.08891). Some schedulers
    stop just short of it, for their own arithmetic, and some do not know the option.
    """
    if getattr(scheduler, "alphas_cumprod", None) is None:
        name = type(scheduler).__name__
        advice = (
            "exchange it: "
            "pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)."
        )
        if name.startswith("FlowMatch"):  # there is more to change than the scheduler
            advice = "this network was trained otherwise; wrap it with a FunctionBackend."
        raise InputValueError(
            f"{name} does not say how noise was added in training (it has no alphas_cumprod); "
            f"{advice}"
        )
    alpha = scheduler.alphas_cumprod.cpu().double().sqrt()
    if scheduler.config.get("rescale_betas_zero_snr", False):
        end = alpha[-1].item() if alpha[-1] > NO_SIGNAL else 0.0
        alpha = (alpha - end) * alpha[0] / (alpha[0] - end)
        alpha[-1] = 0.0
    return alpha.square()
