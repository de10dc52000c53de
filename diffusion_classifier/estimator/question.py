"""What the network is asked: classes, their prompts, and the encoded prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backends.base import Backend, Conditioning
from .labels import warn_of_alike, warn_of_numbers
from .prompts import Prompts, make_prompts


@dataclass(frozen=True)
class Question:
    """Classes and prompts of one fit.

    Attributes
    ----------
    prompts : dict
        The prompts of each label.
    class_of : Tensor of shape (P,), dtype int64
        Class index of each prompt.
    condition : Conditioning
        One row per prompt.
    """

    prompts: dict[Any, list[str]]
    class_of: Tensor
    condition: Conditioning

    @classmethod
    def of(cls, classes: NDArray[Any], prompts: Prompts, backend: Backend) -> Self:
        """Make and encode the prompts of classes.

        Raises
        ------
        InputValueError
            If a label has no prompt.

        Warns
        -----
        UserWarning
            If labels are numbers but the model reads text, or it reads several labels alike.
        """
        made = make_prompts(
            classes,
            prompts,
            backend.default_template,
            indices=backend.knows_class_indices,
            articles=backend.known_words is None or "an" in backend.known_words,
        )
        if backend.text_conditional and not isinstance(prompts, dict):
            warn_of_numbers(classes, made[0][0])
        class_of = np.repeat(np.arange(len(classes)), [len(p) for p in made])
        labels = classes[class_of].tolist()
        flat = [prompt for of_class in made for prompt in of_class]
        with torch.inference_mode():
            condition = backend.encode_classes(labels, flat)
        warn_of_alike(condition, flat, labels)
        by_label = dict(zip(classes.tolist(), made, strict=True))
        return cls(by_label, torch.as_tensor(class_of), condition)
