"""What every noise predictor offers: one small interface for any diffusion model.

A backend turns images into latents, prompts into conditions, and a noised latent, a timestep
and a condition into the network's output. Everything else (draws, batching, pruning, losses)
is done for it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..errors import InputValueError
from ..noise.schedule import NoiseSchedule
from ..utils.display import DocumentedMixin


class Conditioning:
    """Encoded prompts: named tensors whose first axis is the prompt.

    Parameters
    ----------
    **tensors : Tensor of shape (P, ...)
        What the network takes beside the latent and the timestep.

    Raises
    ------
    ValueError
        If there are no tensors or their first axes differ in length.

    Examples
    --------
    >>> import torch
    >>> condition = Conditioning(embeddings=torch.eye(3))
    >>> len(condition), condition[torch.tensor([2, 0])]["embeddings"].tolist()
    (3, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def __init__(self, **tensors: Tensor) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise InputValueError(f"condition tensors must share a first axis, not {lengths}.")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Any) -> Any:
        """A tensor by name, or a Conditioning of the rows that an index tensor or slice picks."""
        if isinstance(index, str):
            return self.tensors[index]
        return Conditioning(**{name: tensor[index] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> Conditioning:
        """The same conditions on another device."""
        return Conditioning(**{name: tensor.to(device) for name, tensor in self.tensors.items()})

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(t.shape)}" for name, t in self.tensors.items())
        return f"Conditioning({shapes})"

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Prompts of several Conditionings, one after the other."""
        names = parts[0].tensors
        return Conditioning(**{name: torch.cat([part[name] for part in parts]) for name in names})


class Backend(DocumentedMixin, BaseEstimator, ABC):
    """A noise predictor.

    Attributes
    ----------
    schedule : NoiseSchedule
        ``alpha`` and ``sigma`` of the forward process the network was trained on.
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}
        What the network outputs; see :mod:`diffusion_classifier.noise.prediction`.
    input_kind : {"image", "array"}
        How X is read: as pictures, or as a numeric array whose rows are the latents' source.
    text_conditional : bool
        Whether prompts mean something to the network (they are text, not class indices).
    learned_variance : bool
        Whether the network also predicts the variance of a reverse step, which
        ``forward_with_variance`` then returns.
    unconditional_prompt : str or None
        The prompt that stands for no condition at all; None if there is none.
    default_template : str
        Prompt of a label when the user gives none.
    default_proposal : Tensor of shape (T,) or None
        Where over t the model tells classes apart, if that is known: times the weights w(t), what
        :class:`~diffusion_classifier.samplers.ImportanceSampler` proposes when the user names
        no sampler. None: uniform timesteps.
    known_words : frozenset of str or None
        Words that the text encoder was trained on; None if it reads any.
    image_size : tuple of (int, int) or None
        Height and width that the model expects; None where images come as they are.
    image_shape : tuple of int or None
        Shape of the pictures whose flattened rows X holds, (height, width) or (height, width,
        channels) or (channels, height, width); None refuses flattened rows.
    device : torch.device
        Where ``forward`` runs.
    dtype : torch.dtype
        What ``forward`` computes in.
    """

    schedule: NoiseSchedule
    prediction_type: str
    input_kind: str = "image"
    learned_variance: bool = False
    text_conditional: bool = True
    unconditional_prompt: str | None = ""
    default_template: str = "a photo of a {}"
    default_proposal: Tensor | None = None
    known_words: frozenset[str] | None = None
    image_size: tuple[int, int] | None = None
    image_shape: tuple[int, ...] | None = None
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    @property
    def class_by_position(self) -> bool:
        """Whether classes are known by their position among those of ``fit``, not by prompts."""
        return not self.text_conditional

    def fit(self, X: Any, y: Any) -> Backend:
        """Learn from labelled images; most backends are trained already and do nothing."""
        return self

    def identity(self) -> dict[str, Any]:
        """Which model this is, for whoever saves something learned with it.

        Returns
        -------
        dict
            ``name``, ``revision``: where it comes from (None if it was made in memory);
            ``backend``: its class; ``config_sha256``: a hash of what is known of its configuration.
        """
        config = (self.prediction_type, self.input_kind, self.image_size, self.default_template)
        digest = hashlib.sha256(repr(config).encode())
        for level in (self.schedule.alpha, self.schedule.sigma):
            digest.update(level.numpy().tobytes())
        return {
            "name": None,
            "revision": None,
            "backend": type(self).__name__,
            "config_sha256": digest.hexdigest(),
        }

    def saved_origin(self) -> dict[str, Any] | None:
        """How a saved classifier finds the network again; None if it was made in memory.

        Returns
        -------
        dict or None
            What :func:`~diffusion_classifier.backends.resolve.rebuild_backend` takes.
        """
        return None

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Latents, float32 on ``device``, of images [B, 3, H, W] in [-1, 1] (or rows [B, F])."""

    @abstractmethod
    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """One condition per prompt; ``labels[p]`` is the class that ``prompts[p]`` describes."""

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """The network's own output for noised latents [R, ...], timesteps [R], R conditions."""

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """``forward`` and, in the same shape, v in [-1, 1] of the variance that is learned.

        -1 is the variance of the true posterior, 1 is beta_t; between them, logarithms are
        interpolated.

        Raises
        ------
        NotImplementedError
            If ``learned_variance`` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts no variance.")
