"""Noise predictor made from a callable: the shortest way from your own network to a classifier.

The callable receives noised latents ``z [R, ...]``, timesteps ``t [R]`` and the class of each row,
``class_index [R]``. It returns the network's prediction in the shape of ``z``. Classes are numbered
in sorted order, as in the estimator's ``classes_``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError, OutputShapeError
from ..noise.prediction import PREDICTION_TYPES, PredictionTypeName
from ..noise.schedule import NoiseSchedule
from ..utils.validation import check_option
from .base import INPUT_KINDS, Backend, Conditioning, InputKind


def class_positions(classes: Any, labels: Sequence[Any]) -> Tensor:
    """Look up the positions of labels in the sorted classes.

    Parameters
    ----------
    classes : ndarray of shape (K,)
        Sorted and without duplicates.
    labels : sequence of length P

    Returns
    -------
    Tensor of shape (P,), dtype int64

    Raises
    ------
    InputValueError
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
                f"{', '.join(map(repr, list(position)[:10]))}; call fit again with all labels."
            )
    return torch.tensor([position[label] for label in labels], dtype=torch.int64)


class FunctionBackend(Backend):
    """Noise predictor made from a callable, such as your own PyTorch network.

    Parameters
    ----------
    function : callable
        ``function(z, t, class_index)`` with noised latents [R, ...], integer timesteps [R] and
        class positions [R] (int64, in sorted order of the labels). It returns a tensor in the
        shape of ``z``. A ``torch.nn.Module`` runs on the device and in the dtype of its
        parameters; its mode (``eval()`` or ``train()``) is left as it is. Clones share it.
    schedule : NoiseSchedule or Tensor of shape (T,)
        Noise schedule of training. A tensor holds ``alphas_cumprod`` (``alpha_t^2`` of a
        variance-preserving schedule).
    prediction_type : {"epsilon", "v_prediction", "sample", "flow"}, default="epsilon"
        What the callable returns; see :mod:`diffusion_classifier.noise.prediction`.
    input_kind : {"image", "array"}, default="image"
        How X is read: as images [B, 3, H, W] in [-1, 1], or as numeric rows [B, F].
    image_size : tuple of (int, int) or None, default=None
        Height and width that the network expects, in pixels; None leaves images as they are.
    image_shape : tuple of int or None, default=None
        Shape of the images whose flattened rows X holds, such as (28, 28); None refuses rows.
    default_template : str, default="{}"
        Template of the prompts when the user gives none. The callable never sees prompts.
    encode : callable or None, default=None
        ``encode(images)`` returns the latents [B, ...] of a batch. None: latents are the images.
    learned_variance : bool, default=False
        Whether the callable returns twice the channels of ``z``: its prediction, then the
        reverse-step variance that ``loss="vlb"`` uses, as in DiT and guided diffusion.

    Raises
    ------
    InputTypeError
        If ``function`` or ``encode`` is not callable, or ``schedule`` is neither a NoiseSchedule
        nor a 1-D tensor.
    InputValueError
        If ``prediction_type``, ``input_kind`` or ``image_size`` is not a known value, or
        ``schedule`` holds values that are not valid noise levels.

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
        prediction_type: PredictionTypeName = "epsilon",
        input_kind: InputKind = "image",
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
            raise InputValueError(
                f"image_size={image_size!r} must be (height, width), two positive integers."
            )
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
        """Return an unfitted backend that shares the callables and their weights."""
        return FunctionBackend(**self.get_params(deep=False))

    def fit(self, X: Any, y: Any) -> FunctionBackend:
        """Store the classes of y, so that later calls may encode a subset of them."""
        self.classes_ = np.unique(y)
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        """Return latents [B, ...]: ``encode(images)``, or the images themselves, on ``device``.

        Raises
        ------
        OutputShapeError
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
        """Return ``class_index`` [P]: positions in ``classes_``, or in ``labels`` before ``fit``.

        Raises
        ------
        InputValueError
            If a label is not one of ``classes_``.
        """
        classes = getattr(self, "classes_", None)
        positions = class_positions(np.unique(labels) if classes is None else classes, labels)
        return Conditioning(class_index=positions.to(self.device))

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Return the callable's prediction for R rows, without a learned variance.

        Raises
        ------
        OutputShapeError
            If the callable does not return a tensor in the shape of ``z``, or with twice its
            channels if ``learned_variance``.
        """
        if self.learned_variance:
            return self.forward_with_variance(z, t, condition)[0]
        return self._call(z, t, condition)

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """Split the callable's output into prediction and learned variance.

        Raises
        ------
        NotImplementedError
            If ``learned_variance`` is False.
        OutputShapeError
            If the callable does not return a tensor with twice the channels of ``z``.
        """
        if not self.learned_variance:
            return super().forward_with_variance(z, t, condition)
        output, variance = self._call(z, t, condition).chunk(2, 1)
        return output, variance

    def _call(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Call the function and check the shape of its output."""
        output = self.function(z, t, condition["class_index"])
        shape, why = tuple(z.shape), "as z"
        if self.learned_variance:
            shape, why = (shape[0], 2 * shape[1], *shape[2:]), "twice the channels of z"
        if not isinstance(output, Tensor) or output.shape != shape:
            raise OutputShapeError(
                f"function returned {describe(output)}; expected a tensor of shape {shape}, {why}."
            )
        return output


def describe(value: Any) -> str:
    """Describe a tensor by its shape and any other value by its type, for error messages."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__}"


def as_schedule(schedule: NoiseSchedule | Tensor) -> NoiseSchedule:
    """Return a NoiseSchedule unchanged, or make one from a 1-D tensor of ``alphas_cumprod``."""
    if isinstance(schedule, NoiseSchedule):
        return schedule
    if not isinstance(schedule, Tensor) or schedule.ndim != 1:
        raise InputTypeError(
            "schedule must be a NoiseSchedule or a 1-D tensor of alphas_cumprod, not "
            f"{describe(schedule)}."
        )
    return NoiseSchedule.from_alphas_cumprod(schedule)
