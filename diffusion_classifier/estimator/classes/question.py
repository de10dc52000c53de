r"""What the network is asked: classes, their prompts, and the encoded prompts.

With ``prompt_reduction="embedding"`` a class with prompts p in S has a single condition, the mean
of theirs, so that it costs as many evaluations as one prompt:

    e_c = mean_{p in S} e_p,           for text embeddings [L, D] and pooled vectors [D].

Token embeddings are averaged place by place. Where prompts differ in length, a place is averaged
over the prompts that have a token there, and the mask of the class is the union of their masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...backends.base import Backend, Conditioning
from ...errors import InputValueError
from ...utils.display import short_repr
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
    reduction : {"best", "mean", "mixture"}
        How the losses of a class's rows become one.
    """

    prompts: dict[Any, list[str]]
    class_of: Tensor
    condition: Conditioning
    reduction: str = "best"

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the P conditions."""
        return row_names(self.prompts, len(self.class_of))

    @classmethod
    def of(
        cls, classes: NDArray[Any], prompts: Prompts, backend: Backend, reduction: str = "best"
    ) -> Self:
        """Make and encode the prompts of classes.

        Raises
        ------
        InputValueError
            If a label has no prompt, or ``reduction`` is "embedding" and the backend has no text
            embeddings that can be averaged.

        Warns
        -----
        UserWarning
            If labels are numbers but the model reads text, or it reads several labels alike.
        """
        made = prompts_of(classes, prompts, backend)
        if backend.text_conditional and not isinstance(prompts, dict):
            warn_of_numbers(classes, made[0][0])
        class_of = np.repeat(np.arange(len(classes)), [len(p) for p in made])
        labels = classes[class_of].tolist()
        flat = [prompt for of_class in made for prompt in of_class]
        with torch.inference_mode():
            condition = backend.encode_classes(labels, flat)
        warn_of_alike(condition, flat, labels)
        by_label = dict(zip(classes.tolist(), made, strict=True))
        if reduction == "embedding":
            check_text(backend)
            condition = average_prompts(condition, torch.as_tensor(class_of))
            class_of, reduction = np.arange(len(classes)), "best"
        return cls(by_label, torch.as_tensor(class_of), condition, reduction)


def row_names(prompts: Mapping[Any, Sequence[str]], n_rows: int) -> tuple[str, ...]:
    """Return the names of P conditions: prompts, or lists of prompts that were averaged.

    Examples
    --------
    >>> row_names({"cat": ["a cat", "the cat"], "dog": ["a dog"]}, 3)
    ('a cat', 'the cat', 'a dog')
    >>> row_names({"cat": ["a cat", "the cat"], "dog": ["a dog"]}, 2)
    ("mean of ['a cat', 'the cat']", 'a dog')
    """
    if n_rows > len(prompts):
        return tuple(prompt for of_class in prompts.values() for prompt in of_class)
    return tuple(
        of_class[0] if len(of_class) == 1 else f"mean of {list(of_class)}"
        for of_class in prompts.values()
    )


def check_text(backend: Backend) -> None:
    """Raise an InputValueError unless the backend reads prompts as text."""
    if not backend.text_conditional:
        raise InputValueError(
            f'prompt_reduction="embedding" averages text embeddings, but {short_repr(backend)} '
            'knows classes by index; use "best", "mean" or "mixture".'
        )


def average_prompts(condition: Conditioning, class_of: Tensor) -> Conditioning:
    """Average the conditions of each class's prompts.

    Parameters
    ----------
    condition : Conditioning of length P
        Numbers are averaged, over the prompts whose mask is not 0 where there is a mask of the same
        places; masks (integers or booleans, with "mask" in their names) are joined. Other integers
        must be the same for all prompts of a class.
    class_of : Tensor of shape (P,), dtype int64
        Class of each prompt: 0, 1, 2, ...

    Returns
    -------
    Conditioning of length K

    Raises
    ------
    InputValueError
        If integers differ between the prompts of a class, such as token ids.

    Examples
    --------
    >>> condition = Conditioning(
    ...     text=torch.tensor([[[2.0], [4.0]], [[6.0], [0.0]]]),
    ...     text_mask=torch.tensor([[1, 1], [1, 0]]))
    >>> mean = average_prompts(condition, torch.tensor([0, 0]))
    >>> mean["text"].flatten().tolist(), mean["text_mask"].tolist()
    ([4.0, 4.0], [[1, 1]])
    """
    groups = [(class_of == k).nonzero()[:, 0] for k in range(int(class_of.max()) + 1)]
    masks = {name: t for name, t in condition.tensors.items() if _is_mask(name, t)}
    averaged = {}
    for name, tensor in condition.tensors.items():
        mask = next((m for m in masks.values() if _masks(m, tensor)), None)
        if name in masks:
            rows = [tensor[group].amax(0) for group in groups]
        elif tensor.is_floating_point():
            rows = [_mean(tensor[group], None if mask is None else mask[group]) for group in groups]
        else:
            rows = [tensor[group[0]] for group in groups]
            for group, row in zip(groups, rows, strict=True):
                if bool((tensor[group] != row).any()):
                    raise InputValueError(
                        f'prompt_reduction="embedding" cannot average {name!r}, which are integers '
                        "and differ between the prompts of a class; encode prompts as embeddings, "
                        'or use "best", "mean" or "mixture".'
                    )
        averaged[name] = torch.stack(rows)
    return Conditioning(**averaged)


def _is_mask(name: str, tensor: Tensor) -> bool:
    return "mask" in name and tensor.ndim == 2


def _masks(mask: Tensor, tensor: Tensor) -> bool:
    """Whether a mask [P, L] says which places of a tensor [P, L, D] hold tokens."""
    return tensor.ndim == 3 and mask.shape == tensor.shape[:2]


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average values [n, ...] over their first axis, where the mask [n, L] is not 0."""
    if mask is None:
        return values.double().mean(0).to(values.dtype)
    has_token = (mask != 0)[..., None].double()
    n = has_token.sum(0)
    mean = (values.double() * has_token).sum(0) / n.clamp(min=1)
    # what no prompt reads there is kept, as networks may normalise it
    return mean.where(n > 0, values.double().mean(0)).to(values.dtype)


def prompts_of(classes: NDArray[Any], prompts: Any, backend: Backend) -> list[list[str]]:
    """Make the prompts of classes as a backend reads them."""
    return make_prompts(
        classes,
        prompts,
        backend.default_template,
        indices=backend.knows_class_indices,
        articles=backend.known_words is None or "an" in backend.known_words,
    )
