"""Noise predictor made from a callable: the shortest way from your own network to a classifier.

The callable receives noised latents ``z [R, ...]``, timesteps ``t [R]`` and the class of each row,
``class_index [R]``. It returns the network's prediction in the shape of ``z``. A class index means
what it meant in training. It is stated by the user, and never the place among the labels of a fit.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputTypeError, InputValueError
from ..noise.prediction import PredictionTypeName
from ..noise.process import process_of
from ..noise.schedule import NoiseSchedule
from ..utils.constraints import InstancesOf, Integers, Sequences, check
from ..utils.display import short_repr
from ..utils.validation import check_option
from .base import INPUT_KINDS, Backend, Conditioning, InputKind, check_output, describe, to_grey
from .state.weights import WeightSample, own_weights

STATE_CLASSES = (
    "FunctionBackend passes class indices to the function, so say which index a label means: with "
    "integer labels, with prompts={label: index}, or with FunctionBackend(..., classes=[...]), "
    "which lists the names of all classes in the network's order."
)


class FunctionBackend(Backend):
    """Noise predictor made from a callable, such as your own PyTorch network.

    The callable knows classes by index. There are three ways to say which index a label means:
    integer labels are the indices themselves; ``prompts={label: index}`` of the classifier gives
    each label its index; and ``classes`` lists the labels in the order of the indices. Other
    labels are refused.

    Parameters
    ----------
    function : callable
        ``function(z, t, class_index)`` with noised latents [R, ...], integer timesteps [R] from 0
        to T - 1, and class indices [R] (int64). It returns a floating-point tensor in the shape of
        ``z``. A network that was trained on another time converts ``t``: a flow on [0, 1] reads
        ``(t + 1/2) / T``, see :meth:`~diffusion_classifier.noise.NoiseSchedule.flow`. A
        ``torch.nn.Module`` runs on the device and in the dtype of its parameters; its mode
        (``eval()`` or ``train()``) is left as it is. Clones share it.
    schedule : NoiseSchedule or Tensor of shape (T,)
        Noise schedule of training. A tensor holds ``alphas_cumprod`` (``alpha_t^2`` of a
        variance-preserving schedule), not betas. A flow has ``NoiseSchedule.flow(T)``.
    prediction_type : str, default="epsilon"
        "epsilon", "v_prediction", "sample", "flow" (:mod:`~diffusion_classifier.noise.prediction`),
        or logits of "tokens" or "ordered_tokens" (:mod:`~diffusion_classifier.noise.process`).
    classes : sequence of str or int or None, default=None
        Names of all classes, in the order of the network's class indices: a label with the name
        ``classes[k]`` has index k. None: labels or prompts give the index.
    input_kind : {"image", "array"}, default="image"
        How X is read: as images [B, 3, H, W] in [-1, 1], or as numeric arrays, by default rows
        [B, F].
    input_shape : tuple of int or None, default=None
        Shape of one input. For images (channels, height, width): they are resized, and converted
        to grey if channels is 1. For arrays any shape, such as (channels, length) of signals: X is
        then an array ``[N, *input_shape]``, or one of its flattened rows. None: images of three
        channels, or rows.
    image_size : tuple of (int, int) or None, default=None
        Height and width that the network expects, in pixels. None: those of ``input_shape``, or
        else images keep their size.
    image_shape : tuple of int or None, default=None
        Shape of the images whose flattened rows X holds, such as (28, 28); None refuses rows.
    default_template : str, default="{}"
        Template of the prompts when the user gives none. The callable never sees prompts. With
        another template than "{}", prompts that state no class are descriptions, and labels state
        the class.
    encode : callable or None, default=None
        ``encode(images)`` returns the latents [B, ...] of a batch. None: latents are the images.
    learned_variance : bool, default=False
        Whether the callable returns twice the channels of ``z``: its prediction, then the
        reverse-step variance that ``loss="vlb"`` uses, as in DiT and guided diffusion.
    name : str or None, default=None
        Name of this very network, part of its identity. ``memory`` needs one. Give a network whose
        code or settings have changed another name; changes of weights are seen.

    Raises
    ------
    InputTypeError
        If ``function`` or ``encode`` is not callable, ``schedule`` is neither a NoiseSchedule nor
        a 1-D tensor, or ``classes`` is no sequence.
    InputValueError
        If ``prediction_type``, ``input_kind``, ``image_size`` or ``input_shape`` is not a valid
        value, ``classes`` is empty or repeats a name, or ``schedule`` holds values that are not
        valid noise levels.

    Warns
    -----
    UserWarning
        If a tensor ``schedule`` keeps more than half of the image's variance at its last timestep,
        as ``scheduler.alphas`` would.

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
    >>> backend = FunctionBackend(
    ...     Network().eval(), schedule=NoiseSchedule.flow(1000), classes=["dog", "cat"]
    ... )
    >>> condition = backend.encode_classes(["cat", "dog"], ["cat", "dog"])
    >>> condition["class_index"].tolist()
    [1, 0]
    >>> z = torch.randn(2, 3, 8, 8)
    >>> backend.forward(z, torch.tensor([10, 900]), condition).shape
    torch.Size([2, 3, 8, 8])
    """

    text_conditional = False
    class_by_position = False  # a label or prompt states the index
    unconditional_prompt = None

    def __init__(
        self,
        function: Callable[[Tensor, Tensor, Tensor], Tensor],
        *,
        schedule: NoiseSchedule | Tensor,
        prediction_type: PredictionTypeName = "epsilon",
        classes: Sequence[str | int] | None = None,
        input_kind: InputKind = "image",
        input_shape: tuple[int, ...] | None = None,
        image_size: tuple[int, int] | None = None,
        image_shape: tuple[int, ...] | None = None,
        default_template: str = "{}",
        encode: Callable[[Tensor], Tensor] | None = None,
        learned_variance: bool = False,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise InputTypeError(f"function must be callable, not {describe(function)}.")
        if not (encode is None or callable(encode)):
            raise InputTypeError(f"encode must be callable or None, not {describe(encode)}.")
        process_of(prediction_type)
        check_option("input_kind", input_kind, INPUT_KINDS)
        check("name", name, InstancesOf(str) | None)
        check("image_size", image_size, Sequences(Integers(1), 2) | None)
        check("input_shape", input_shape, Sequences(Integers(1)) | None)
        if input_shape is not None and input_kind == "image":
            if len(input_shape) != 3 or input_shape[0] not in (1, 3):
                raise InputValueError(
                    f"input_shape={input_shape!r} must be (channels, height, width), with 1 or 3 "
                    'channels (grey or colour); set input_kind="array" if X holds no pictures.'
                )
            height_width = input_shape[1], input_shape[2]
            if image_size is not None and tuple(image_size) != height_width:
                raise InputValueError(
                    f"image_size={image_size!r} differs from the height and width of input_shape="
                    f"{input_shape!r}; leave out image_size."
                )
            image_size = height_width if image_size is None else image_size
        self.function = function
        self.schedule = as_schedule(schedule)
        self.prediction_type = prediction_type
        self.classes = classes
        self.input_kind = input_kind
        self.input_shape = input_shape
        self.image_size = image_size
        self.image_shape = image_shape
        self.default_template = default_template
        self.encode = encode
        self.learned_variance = learned_variance
        self.name = name
        number_names(classes)  # raises here rather than in fit
        parameters = function.parameters() if isinstance(function, torch.nn.Module) else iter(())
        if (parameter := next(parameters, None)) is not None:
            self.device, self.dtype = parameter.device, parameter.dtype

    def __sklearn_clone__(self) -> FunctionBackend:
        """Return a backend that shares the callables and their weights."""
        return type(self)(**self.get_params(deep=False))

    def identity(self) -> dict[str, Any]:
        """Identify the model; the hash also covers ``classes`` and ``input_shape``."""
        identity = super().identity()
        stated = {
            "classes": list(number_names(self.classes)),
            "input_shape": [int(length) for length in self.input_shape or ()],
        }
        if any(stated.values()):
            content = identity["config_sha256"] + repr(stated)
            identity["config_sha256"] = hashlib.sha256(content.encode()).hexdigest()
        return identity | {"name": self.name}

    def fingerprint(self) -> str | None:
        """Identify the function and the encoder by ``name`` and weights; None without a name.

        Weights alone do not say what a network computes with them.
        """
        if self.name is None:
            return None
        parts = [self.name]
        for part in (self.function, self.encode):
            if isinstance(part, torch.nn.Module):
                weights = WeightSample.of([*own_weights(part), *part.named_buffers()])
                parts.append(f"{type(part).__qualname__} {weights.digest()}")
        return "; ".join(parts)

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, H, W] in [-1, 1], or arrays [B, ...], as latents [B, ...].

        Inputs are brought into ``input_shape``, if that is stated, and moved to ``device``. Latents
        are what ``encode`` returns, or else the inputs themselves.

        Raises
        ------
        InputValueError
            If the inputs do not have ``input_shape``.
        """
        images = images.to(self.device, torch.promote_types(self.dtype, torch.float32))
        if self.input_shape is not None:
            if self.input_kind == "image" and self.input_shape[0] == 1:
                images = to_grey(images)
            images = reshaped(images, self.input_shape)
        encoded = images if self.encode is None else self.encode(images)
        return process_of(self.prediction_type).latents(encoded)

    def encode_classes(self, labels: Sequence[Any], prompts: Sequence[str]) -> Conditioning:
        """Return ``class_index`` [P], the index that each prompt states.

        Parameters
        ----------
        labels : sequence of length P
        prompts : sequence of str of length P
            Names of ``classes``, or class indices. By default they are the labels.

        Returns
        -------
        Conditioning of length P

        Raises
        ------
        InputValueError
            If a prompt states no class, or two labels state the same one.
        """
        names, index = number_names(self.classes), []
        for label, prompt in zip(labels, prompts, strict=True):
            index.append(self._find_class(label, prompt, names))
            twin = labels[index.index(index[-1])]
            if twin != label:
                raise InputValueError(
                    f"labels {short_repr(twin)} and {short_repr(label)} both have class index "
                    f"{index[-1]} and could not be told apart; give each its own."
                )
        return Conditioning(class_index=torch.tensor(index, device=self.device))

    def _find_class(self, label: Any, prompt: str, names: dict[str, int]) -> int:
        """Return the class index that a prompt states, by name or as a number."""
        described = self.default_template != "{}"
        # Where names are numbers, any other number is a wrong name and no index.
        by_number = all(as_index(name) is None for name in names)
        for text in (prompt, str(label)) if described else (prompt,):
            if text in names:
                return names[text]
            index = as_index(text)
            if index is not None and by_number and index < (len(names) or math.inf):
                return index
        subject = f"label {short_repr(label)}"
        if prompt != str(label):
            subject += f", with the prompt {short_repr(prompt)},"
        if not names:
            raise InputValueError(f"{subject} states no class index. {STATE_CLASSES}")
        known = f"{len(names)} classes of the backend, {short_repr(list(names))}"
        raise InputValueError(
            f"{subject} is not one of the {known}; give one of these names, or "
            "prompts={label: name or index}."
        )

    def forward(self, z: Tensor, t: Tensor, condition: Conditioning) -> Tensor:
        """Return the callable's prediction for R rows, without a learned variance.

        Raises
        ------
        OutputShapeError
            If the callable does not return a floating-point tensor in the shape of ``z``, or with
            twice its channels if ``learned_variance``.
        """
        if self.learned_variance:
            return self.forward_with_variance(z, t, condition)[0]
        shape = process_of(self.prediction_type).output_shape(z.shape)
        return check_output(self._call(z, t, condition), shape, "function")

    def forward_with_variance(
        self, z: Tensor, t: Tensor, condition: Conditioning
    ) -> tuple[Tensor, Tensor]:
        """Split the callable's output into prediction and learned variance.

        Raises
        ------
        NotImplementedError
            If ``learned_variance`` is False.
        OutputShapeError
            If the callable does not return a floating-point tensor with twice the channels of
            ``z``.
        """
        if not self.learned_variance:
            return super().forward_with_variance(z, t, condition)
        shape = (len(z), 2 * z.shape[1], *z.shape[2:])
        why = " It has twice the channels of z: the prediction, then the variance."
        output = check_output(self._call(z, t, condition), shape, "function", why)
        return output[:, : z.shape[1]], output[:, z.shape[1] :]

    def _call(self, z: Tensor, t: Tensor, condition: Conditioning) -> Any:
        index = condition["class_index"]
        try:
            return self.function(z, t, index)
        except IndexError as error:  # of an embedding, whose message names neither
            error.add_note(
                f"function was called with t in [{t.min()}, {t.max()}] and class_index in "
                f"[{index.min()}, {index.max()}]; does the network know all of them?"
            )
            raise


def number_names(classes: Any) -> dict[str, int]:
    """Map the name of each class to its place in ``classes``; no classes if that is None.

    Raises
    ------
    InputTypeError
        If ``classes`` is not a list, tuple or vector.
    InputValueError
        If it is empty or repeats a name.
    """
    if classes is None:
        return {}
    if isinstance(classes, str | bytes | Mapping) or np.ndim(classes) != 1:
        raise InputTypeError(
            f"classes={short_repr(classes)} must be a list of names, in the network's order."
        )
    if not len(classes):
        raise InputValueError("classes is empty; list the names of all classes.")
    index_of: dict[str, int] = {}
    for k, name in enumerate(map(str, classes)):
        if index_of.setdefault(name, k) != k:
            raise InputValueError(
                f"classes[{k}] repeats the name {short_repr(name)} of classes[{index_of[name]}]; "
                "give each class its own name."
            )
    return index_of


def as_index(text: str) -> int | None:
    """Read a class index, such as "3", or "3.0" of a label that is a float; None if it is none."""
    digits = text.strip().removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None


def reshaped(inputs: Tensor, shape: Sequence[int]) -> Tensor:
    """Bring each of the inputs, which may be flattened, into a shape.

    Raises
    ------
    InputValueError
        If their shape differs.
    """
    if inputs.shape[1:] != tuple(shape) and inputs.shape[1:] != (math.prod(shape),):
        raise InputValueError(
            f"inputs of shape {tuple(inputs.shape[1:])} do not fit the backend's input_shape="
            f"{tuple(shape)}; give X or image_size that shape, or set input_shape to theirs."
        )
    return inputs.reshape(-1, *shape)


def as_schedule(schedule: NoiseSchedule | Tensor) -> NoiseSchedule:
    """Return a NoiseSchedule unchanged, or make one from a 1-D tensor of ``alphas_cumprod``."""
    if isinstance(schedule, NoiseSchedule):
        return schedule
    if not isinstance(schedule, Tensor) or schedule.ndim != 1:
        raise InputTypeError(
            "schedule must be a NoiseSchedule or a 1-D tensor of alphas_cumprod, not "
            f"{describe(schedule)}."
        )
    made = NoiseSchedule.from_alphas_cumprod(schedule)
    if made.log_snr[-1] > 0:
        warnings.warn(
            f"schedule keeps {schedule[-1].item():.0%} of the image's variance at its last "
            "timestep. A network trained on that little noise hardly learns what its classes look "
            "like; if the tensor holds scheduler.alphas, pass scheduler.alphas_cumprod instead.",
            UserWarning,
            stacklevel=3,
        )
    return made
