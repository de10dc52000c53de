"""What differs between families of diffusers pipelines, as one small adapter each.

Stable Diffusion, SDXL, Flux, DiT, ... share a shape: components that encode images and prompts,
a denoiser, and a scheduler that knows how noise was added in training. A :class:`Family` says
where these are in a pipeline; :class:`~diffusion_classifier.backends.DiffusersBackend` does the
rest. Families have no state: the pipeline is passed to every method. The defaults here serve
latent, variance-preserving models; a new family overrides what it has otherwise.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ..schedule import NoiseSchedule
from .base import Conditioning

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
NO_SIGNAL = 2**-12  # alpha at which some schedulers end a schedule that should end at 0


class Family(ABC):
    """Adapter for the diffusers pipelines that one code path serves.

    Attributes
    ----------
    pipelines : tuple of str
        Names of the diffusers pipeline classes.
    components : tuple of str
        Components that classification uses; no other is ever loaded.
    denoiser : str
        The component that predicts noise.
    """

    pipelines: tuple[str, ...]
    components: tuple[str, ...]
    denoiser: str = "unet"

    @abstractmethod
    def check(self, pipeline: Any) -> None:
        """Raise ValueError if a network needs inputs that this family does not give it."""

    @abstractmethod
    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """Conditions of a few prompts, padded as the pipeline pads them."""

    @abstractmethod
    def forward(self, pipeline: Any, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """The denoiser's output, a target of :mod:`diffusion_classifier.prediction`."""

    def prediction_type(self, pipeline: Any) -> str:
        """What the denoiser was trained to predict, from the scheduler's configuration."""
        kind = pipeline.scheduler.config.get("prediction_type", "epsilon")
        if kind not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type={kind!r} of {type(pipeline.scheduler).__name__} is not yet "
                f"supported for {type(pipeline).__name__}, only {', '.join(PREDICTION_TYPES)}."
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
        return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor

    def encode_images(self, pipeline: Any, images: Tensor) -> Tensor:
        """Mode of the autoencoder's posterior, scaled as in training; float32."""
        vae, factor = pipeline.vae, pipeline.vae_scale_factor
        if any(side % factor for side in images.shape[-2:]):
            raise ValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} pixels, but this model's "
                f"autoencoder needs sides divisible by {factor}: set image_size to multiples of it."
            )
        with full_precision(vae):
            posterior = vae.encode(images.to(pipeline._execution_device, vae.dtype)).latent_dist
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return (posterior.mode().float() - shift) * vae.config.scaling_factor


def alphas_cumprod(scheduler: Any) -> Tensor:
    """``alpha^2`` of a variance-preserving scheduler of any class, float64, of shape (T,).

    With ``rescale_betas_zero_snr`` the last is 0 (Lin et al., arXiv 2305.08891). Some schedulers
    stop just short of it, for their own arithmetic, and some do not know the option.
    """
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise ValueError(
            f"{type(scheduler).__name__} does not say how noise was added in training "
            "(it has no alphas_cumprod); exchange it: "
            "pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)."
        )
    alpha = scheduler.alphas_cumprod.cpu().double().sqrt()
    if scheduler.config.get("rescale_betas_zero_snr", False):
        end = alpha[-1].item() if alpha[-1] > NO_SIGNAL else 0.0
        alpha = (alpha - end) * alpha[0] / (alpha[0] - end)
        alpha[-1] = 0.0
    return alpha.square()


@contextmanager
def full_precision(vae: Any) -> Iterator[None]:
    """Run a half-precision autoencoder in float32 if its configuration asks for that."""
    dtype = vae.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    if not (half and vae.config.get("force_upcast", False)):
        yield
        return
    with quiet():
        vae.to(torch.float32)
        try:
            yield
        finally:
            vae.to(dtype)


def warn_truncated(tokenizer: Any, prompts: Sequence[str]) -> None:
    """Warn once of each prompt that is longer than the tokenizer takes."""
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    for prompt in dict.fromkeys(prompts):
        length = len(tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids)
        if length > room:
            warnings.warn(
                f"prompt {prompt!r} has {length} tokens, but the text encoder reads only the "
                f"first {room}: shorten it, or what follows is ignored.",
                UserWarning,
                stacklevel=2,
            )


@contextmanager
def quiet(progress_bars: bool = True) -> Iterator[None]:
    """Keep diffusers' and transformers' own logs, below errors, off the screen.

    With ``progress_bars=False`` their progress bars too.
    """
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log
    from huggingface_hub.utils import are_progress_bars_disabled

    with ExitStack() as restore:
        for log in (diffusers_log, transformers_log):
            restore.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
            # transformers switches the Hub's bars along with its own: if the user has those off,
            # switching them back on afterwards would be wrong.
            hide = not progress_bars and not are_progress_bars_disabled()
            if hide and log.is_progress_bar_enabled():
                restore.callback(log.enable_progress_bar)
                log.disable_progress_bar()
        yield
