"""The interface of every noise predictor: one small class for any diffusion model.

A backend encodes images as latents and prompts as conditions, and runs the network on noised
latents, timesteps and conditions. The rest of the package takes care of draws, batching, pruning
and losses.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ..errors import InputValueError, OutputShapeError
from ..noise.prediction import PredictionTypeName
from ..noise.process import PROCESSES, own_process
from ..noise.schedule import NoiseSchedule
from ..utils.display import DocumentedMixin

InputKind = Literal["image", "array"]
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
GREY = (0.299, 0.587, 0.114)  # Pillow's weights of red, green and blue


class Conditioning:
    """Encoded prompts: named tensors with one row per prompt.

    Parameters
    ----------
    **tensors : Tensor of shape (P, ...)
        Inputs of the network besides the latent and the timestep.

    Raises
    ------
    InputValueError
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
            raise InputValueError(
                "condition tensors must share a first axis (one row per prompt), but have lengths "
                f"{lengths}."
            )
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Any) -> Any:
        """Return the tensor of a name, or the rows of an index tensor or slice."""
        if isinstance(index, str):
            return self.tensors[index]
        return Conditioning(**{name: tensor[index] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> Conditioning:
        """Return the same conditions on another device."""
        return Conditioning(**{name: tensor.to(device) for name, tensor in self.tensors.items()})

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(t.shape)}" for name, t in self.tensors.items())
        return f"Conditioning({shapes})"

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Join the prompts of several Conditionings in order."""
        names = parts[0].tensors
        return Conditioning(**{name: torch.cat([part[name] for part in parts]) for name in names})


class Backend(DocumentedMixin, BaseEstimator, ABC):
    """A noise predictor.

    Attributes
    ----------
    schedule : NoiseSchedule
        ``alpha`` and ``sigma`` of the forward process in training.
    prediction_type : {"epsilon", "v_prediction", "sample", "flow", "tokens", "ordered_tokens"}
        What the network outputs; see :mod:`diffusion_classifier.noise.prediction`, and
        :mod:`diffusion_classifier.noise.process` for tokens and processes of your own.
    input_kind : {"image", "array"}
        How X is read: as pictures, or as numeric rows (a table).
    text_conditional : bool
        Whether the network reads prompts as text rather than class indices.
    learned_variance : bool
        Whether the network also predicts the variance of each reverse step;
        ``forward_with_variance`` returns it.
    unconditional_prompt : str or None
        The prompt for unconditional prediction; None if the network has none.
    default_template : str
        Template of the prompts when the user gives none.
    default_proposal : Tensor of shape (T,) or None
        How informative each timestep is, if known. Multiplied by the weights w(t), it is the
        default proposal of :class:`~diffusion_classifier.samplers.ImportanceSampler`, which is
        then the default sampler. None: timesteps are drawn uniformly.
    known_words : frozenset of str or None
        The text encoder's vocabulary; None if it is not restricted.
    image_size : tuple of (int, int) or None
        Height and width that the model expects, in pixels; None leaves images as they are.
    image_shape : tuple of int or None
        Shape of the images whose flattened rows X holds, (height, width) or (height, width,
        channels) or (channels, height, width); None refuses flattened rows.
    input_shape : tuple of int or None
        Shape of one input, if the model states it: (channels, height, width) of pictures, with 1
        channel for grey ones; or any shape, such as (channels, length) of signals, for arrays. X
        then holds arrays ``[N, *input_shape]``. None: pictures have 3 channels, arrays are rows.
    device : torch.device
        Device on which ``forward`` runs.
    dtype : torch.dtype
        Dtype in which ``forward`` computes.
    compiled : bool
        Whether ``forward`` is compiled anew for every number of rows, so that batches should have
        few different lengths.
    """

    schedule: NoiseSchedule
    prediction_type: PredictionTypeName
    input_kind: InputKind = "image"
    learned_variance: bool = False
    text_conditional: bool = True
    unconditional_prompt: str | None = ""
    default_template: str = "a photo of a {}"
    default_proposal: Tensor | None = None
    known_words: frozenset[str] | None = None
    image_size: tuple[int, int] | None = None
    image_shape: tuple[int, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    compiled: bool = False

    @property
    def class_by_position(self) -> bool:
        """Whether a condition is the position of a class in ``classes_`` rather than a prompt."""
        return not self.text_conditional

    @property
    def knows_class_indices(self) -> bool:
        """Whether a prompt states a class by its index, so that it may be an integer."""
        return not (self.text_conditional or self.class_by_position)

    def fit(self, X: Any, y: Any) -> Backend:
        """Learn from labelled data. Pretrained backends do nothing."""
        return self

    def identity(self) -> dict[str, Any]:
        """Identify the model, to be saved along with anything learned from it.

        Returns
        -------
        dict
            ``name`` and ``revision`` (None for a model made in memory), ``backend`` (name of the
            class) and ``config_sha256`` (hash of the configuration and noise schedule).
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

    def fingerprint(self) -> str | None:
        """Tell this network from all others, also by its weights, for ``memory``.

        Two networks with the same fingerprint, ``identity`` and dtype must predict the same.

        Returns
        -------
        str or None
            None if the backend cannot say; ``memory`` then refuses it.
        """
        return None

    def saved_origin(self) -> dict[str, Any] | None:
        """Describe where a saved classifier can load the network again.

        Returns
        -------
        dict or None
            Argument of :func:`~diffusion_classifier.backends.resolve.rebuild_backend`; None if
            the network was made in memory.
        """
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state, and with it a process of one's own, which workers may lack."""
        own = own_process(getattr(self, "prediction_type", ""))  # not before some are loaded
        return super().__getstate__() | ({} if own is None else {"_own_process": own})

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = state.get("_own_process")
        super().__setstate__({name: state[name] for name in state if name != "_own_process"})
        if own is not None:
            PROCESSES.setdefault(self.prediction_type, own)

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, H, W] in [-1, 1], or arrays, as float32 latents [B, ...].

        Arrays are rows [B, F], or ``[B, *input_shape]`` if the backend states an ``input_shape``.
        Latents are on ``device``.
        """

    @abstractmethod
    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """Encode P prompts as P conditions; ``prompts[p]`` describes the class ``labels[p]``."""

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Run the network on noised latents [R, ...], timesteps [R] and R conditions.

        The output has the shape of ``z`` and the meaning of ``prediction_type``. Tokens are int64,
        and the output logits [R, ..., V]; see :class:`~diffusion_classifier.noise.MaskedTokens`.
        """

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """Return the output of ``forward`` and the learned variance v, both in the shape of ``z``.

        v in [-1, 1] interpolates the logarithm of the reverse-step variance between the variance
        of the true posterior (v = -1) and ``beta_t`` (v = 1).

        Raises
        ------
        NotImplementedError
            If ``learned_variance`` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} predicts no variance.")


def to_grey(images: Tensor) -> Tensor:
    """Convert colour images [B, 3, H, W] to grey ones [B, 1, H, W], as Pillow does."""
    return (images * images.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def check_output(output: Any, shape: Sequence[Any], source: str, advice: str = "") -> Tensor:
    """Return the output of a user's network or encoder, if it is what the package expects.

    Parameters
    ----------
    output : object
    shape : sequence of int
        Expected shape. A name, such as "V", stands for any length but 0, and a last element
        ``...`` for any further axes, none of length 0.
    source : str
        What returned the output, for the message.
    advice : str, optional
        End of the message.

    Returns
    -------
    Tensor

    Raises
    ------
    OutputShapeError
        If ``output`` is not a floating-point tensor of this shape.

    Examples
    --------
    >>> check_output((torch.zeros(2, 3),), (2, 3), "the network")
    Traceback (most recent call last):
    diffusion_classifier.errors.OutputShapeError: the network returned tuple; expected a \
floating-point tensor of shape (2, 3). Return its first element.
    """
    is_plain = isinstance(output, Tensor) and output.is_floating_point() and _is_plain(output)
    if is_plain and _fits(output.shape, shape):
        return output
    if isinstance(output, tuple | list):
        advice = advice or " Return its first element."
    elif isinstance(getattr(output, "sample", None), Tensor):
        advice = advice or " Return its .sample."
    axes = ", ".join("..." if length is ... else str(length) for length in shape)
    raise OutputShapeError(
        f"{source} returned {describe(output)}; expected a floating-point tensor of shape "
        f"({axes}{',' * (len(shape) == 1)}).{advice}"
    )


def _fits(found: Sequence[int], wanted: Sequence[Any]) -> bool:
    """Whether a shape is what :func:`check_output` is told to expect."""
    if wanted[-1] is ...:
        if 0 in found[len(wanted) - 1 :]:
            return False
        found, wanted = found[: len(wanted) - 1], wanted[:-1]
    return len(found) == len(wanted) and all(
        length > 0 if isinstance(axis, str) else length == axis
        for length, axis in zip(found, wanted, strict=True)
    )


def describe(value: Any) -> str:
    """Describe a tensor by its shape and any other value by its type, for error messages."""
    if not isinstance(value, Tensor):
        return "None" if value is None else type(value).__name__
    kind = "" if value.is_floating_point() else f" and dtype {value.dtype}"
    if not _is_plain(value):
        kind += " on the meta device" if value.is_meta else f" and layout {value.layout}"
    return f"a tensor of shape {tuple(value.shape)}{kind}"


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has a value in memory for each element: not sparse, not without values."""
    return tensor.layout is torch.strided and not tensor.is_meta
