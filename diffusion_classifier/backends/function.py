"""Any callable as a noise predictor: the shortest way from one's own network to a classifier.

The callable gets the noised latents ``z [R, ...]``, the timesteps ``t [R]`` and the class of each
row ``class_index [R]``, and returns what the network predicts, in the shape of ``z``. Classes are
numbered in sorted order, as in the estimator's ``classes_``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError, OutputShapeError
from ..noise.prediction import PREDICTION_TYPES
from ..noise.schedule import NoiseSchedule
from ..utils.validation import check_option
from .base import Backend, Conditioning

INPUT_KINDS = ("image", "array")


def class_positions(classes: Any, labels: Sequence[Any]) -> Tensor:
    """Positions of labels among the sorted classes.

    Parameters
    ----------
    classes : ndarray of shape (K,)
        Sorted, without duplicates.
    labels : sequence of length P

    Returns
    -------
    Tensor of shape (P,), dtype int64

    Raises
    ------
    ValueError
        If a label is not one of the classes.

    Examples
    --------
    >>> import numpy as np
    >>> class_positions(np.array(["cat", "dog"]), ["dog", "cat", "dog"]).tolist()
    [1, 0, 1]
    """
    position = {label: k for k, label in enumerate(np.asarray(classes).tolist())}
    for p, label in enumerate(labels):
        if label not in position:
            raise InputValueError(
                f"labels[{p}]={label!r} is not one of the {len(position)} classes given to fit, "
                f"{', '.join(map(repr, list(position)[:10]))}; fit again with it among them."
            )
    return torch.tensor([position[label] for label in labels], dtype=torch.int64)


class FunctionBackend(Backend):
    """A noise predictor made of any callable, such as one's own PyTorch network.

    Parameters
    ----------
    function : callable
        ``function(z, t, class_index)`` with noised latents [R, ...], integer timesteps [R] and
        class positions [R] (int64, in sorted order of the labels); returns a tensor in the shape
        of ``z``. A ``torch.nn.Module`` is run where its parameters are and in their dtype, in
        whichever of its modes (``eval()``, ``train()``) it is in; clones share it.
    schedule : NoiseSchedule or Tensor of shape (T,)
        The noise schedule the network was trained on; a tensor holds ``alphas_cumprod``
        (``alpha_t^2`` of a variance-preserving schedule).
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}, default="epsilon"
        What the callable returns; see :mod:`diffusion_classifier.noise.prediction`.
    input_kind : {"image", "array"}, default="image"
        How X is read: as pictures [B, 3, H, W] in [-1, 1], or as numeric rows [B, F].
    image_size : tuple of (int, int) or None, default=None
        Height and width that the network expects, in pixels; None takes images as they are.
    image_shape : tuple of int or None, default=None
        Shape of the pictures whose flattened rows X holds, such as (28, 28); None refuses rows.
    default_template : str, default="{}"
        Prompt of a label when the user gives none; the callable never sees prompts.
    encode : callable or None, default=None
        ``encode(images)`` returns the latents [B, ...] of a batch. None: the images themselves.
    learned_variance : bool, default=False
        Whether the callable returns twice the channels of ``z``: its prediction, then the
        variance of a reverse step, as in DiT and guided diffusion; for ``loss="vlb"``.

    Raises
    ------
    TypeError
        If ``function`` or ``encode`` is not callable, or ``schedule`` is neither of the two.
    ValueError
        If ``prediction_type``, ``input_kind`` or ``image_size`` is not a known value.

    Examples
    --------
    >>> import torch
    >>> from diffusion_classifier.noise import NoiseSchedule
    >>> class Network(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.classes = torch.nn.Embedding(2, 3)
    ...         self.mix = torch.nn.Conv2d(3, 3, kernel_size=3, padding=1)
    ...     def forward(self, z, t, class_index):
    ...         return self.mix(z + self.classes(class_index)[:, :, None, None])
    >>> backend = FunctionBackend(Network().eval(), schedule=NoiseSchedule.flow(1000))
    >>> condition = backend.encode_classes(["cat", "dog"], ["cat", "dog"])
    >>> z = torch.randn(2, 3, 8, 8)
    >>> backend.forward(z, torch.tensor([10, 900]), condition).shape
    torch.Size([2, 3, 8, 8])
    """

    text_conditional = False
    unconditional_prompt = None

    def __init__(
        self,
        function: Callable[[Tensor, Tensor, Tensor], Tensor],
        *,
        schedule: NoiseSchedule | Tensor,
        prediction_type: str = "epsilon",
        input_kind: str = "image",
        image_size: tuple[int, int] | None = None,
        image_shape: tuple[int, ...] | None = None,
        default_template: str = "{}",
        encode: Callable[[Tensor], Tensor] | None = None,
        learned_variance: bool = False,
    ) -> None:
        if not callable(function):
            raise InputTypeError(f"function must be callable, not {describe(function)}.")
        if not (encode is None or callable(encode)):
            raise InputTypeError(f"encode must be callable or None, not {describe(encode)}.")
        check_option("prediction_type", prediction_type, PREDICTION_TYPES)
        check_option("input_kind", input_kind, INPUT_KINDS)
        if image_size is not None and (
            np.shape(image_size) != (2,) or any(int(n) != n or n < 1 for n in image_size)
        ):
            raise InputValueError(f"image_size={image_size!r} must be (height, width) in pixels.")
        self.function = function
        self.schedule = as_schedule(schedule)
        self.prediction_type = prediction_type
        self.input_kind = input_kind
        self.image_size = image_size
        self.image_shape = image_shape
        self.default_template = default_template
        self.encode = encode
        self.learned_variance = learned_variance
        if isinstance(function, torch.nn.Module):
            parameter = next(function.parameters(), None)
            if parameter is not None:
                self.device, self.dtype = parameter.device, parameter.dtype

    def __sklearn_clone__(self) -> FunctionBackend:
        """An unfitted backend with the same callables: weights are shared, not copied."""
        return FunctionBackend(**self.get_params(deep=False))

    def fit(self, X: Any, y: Any) -> FunctionBackend:
        """Remember the classes of y, so that positions hold when fewer labels are encoded."""
        self.classes_ = np.unique(y)
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents [B, ...] on ``device``: ``encode(images)``, or the images themselves.

        Raises
        ------
        ValueError
            If ``encode`` does not return a tensor with one row per image.
        """
        images = images.to(self.device, torch.promote_types(self.dtype, torch.float32))
        if self.encode is None:
            return images
        latents = self.encode(images)
        if not isinstance(latents, Tensor) or latents.shape[:1] != images.shape[:1]:
            raise OutputShapeError(
                f"encode returned {describe(latents)} for {len(images)} images; expected a "
                f"tensor of shape ({len(images)}, ...)."
            )
        return latents

    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """``class_index`` [P]: positions among the classes of ``fit``, else among ``labels``."""
        classes = getattr(self, "classes_", None)
        positions = class_positions(np.unique(labels) if classes is None else classes, labels)
        return Conditioning(class_index=positions.to(self.device))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """The callable's output for R rows, without a learned variance.

        Raises
        ------
        ValueError
            If the output is not a tensor in the shape of ``z`` (of twice its channels, with a
            learned variance).
        """
        if self.learned_variance:
            return self.forward_with_variance(z, t, condition)[0]
        return self._call(z, t, condition)

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """The two halves of the callable's output, if it has a learned variance."""
        if not self.learned_variance:
            return super().forward_with_variance(z, t, condition)
        output, variance = self._call(z, t, condition).chunk(2, 1)
        return output, variance

    def _call(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """All that the callable returns, once its shape is known to be right."""
        output = self.function(z, t, condition["class_index"])
        shape, that = tuple(z.shape), "that of z"
        if self.learned_variance:
            shape, that = (shape[0], 2 * shape[1], *shape[2:]), "z's with twice the channels"
        if not isinstance(output, Tensor) or output.shape != shape:
            raise OutputShapeError(
                f"function returned {describe(output)}; expected a tensor of shape {shape}, {that}."
            )
        return output


def describe(value: Any) -> str:
    """A tensor's shape or a value's type, for error messages."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__}"


def as_schedule(schedule: NoiseSchedule | Tensor) -> NoiseSchedule:
    """A NoiseSchedule as it is, or the one whose ``alphas_cumprod`` a 1-D tensor holds."""
    if isinstance(schedule, NoiseSchedule):
        return schedule
    if not isinstance(schedule, Tensor) or schedule.ndim != 1:
        raise InputTypeError(
            "schedule must be a NoiseSchedule or a 1-D tensor of alphas_cumprod, not "
            f"{describe(schedule)}."
        )
    return NoiseSchedule.from_alphas_cumprod(schedule)
