"""Encoding of prompts with a pipeline's text encoders."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ....utils.display import short_repr
from ....utils.quiet import quiet
from ...base import Conditioning

TooLong = dict[str, tuple[int, int, str]]
# Prompts found too long, with their warnings' figures, while several batches are encoded.
_too_long: ContextVar[TooLong | None] = ContextVar("too_long", default=None)


def encode_text(pipeline: Any, prompts: list[str], **options: Any) -> tuple[Any, ...]:
    """Call the pipeline's own ``encode_prompt`` on its execution device."""
    with quiet():
        return pipeline.encode_prompt(
            prompts, device=pipeline._execution_device, num_images_per_prompt=1, **options
        )


def most_tokens(pipeline: Any) -> int:
    """Return the number of tokens to which ``encode_prompt`` of a pipeline pads by default."""
    return signature(pipeline.encode_prompt).parameters["max_sequence_length"].default


def text_tokenizer(component: Any) -> Any:
    """Return the tokenizer of a processor of texts and images, or what was given in its place."""
    return getattr(component, "tokenizer", component)


def preface_tokens(tokenizer: Any, template: str) -> int:
    """Return how many tokens a template has before the prompt.

    Pipelines leave out most of them, once the language model has read them.
    """
    return len(tokenizer(template.split("{}")[0], add_special_tokens=False).input_ids)


def without_padding(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out the last tokens [P, n, D] that the mask [P, n] hides for every prompt.

    States that it hides for some are 0. One token stays at least: networks cannot read none.

    Examples
    --------
    >>> import torch
    >>> states, mask = without_padding(torch.ones(2, 9, 4), torch.eye(2, 9))
    >>> states.shape, mask.tolist()
    (torch.Size([2, 2, 4]), [[1.0, 0.0], [0.0, 1.0]])
    """
    used = mask.any(0).nonzero().flatten().tolist()
    n = 1 + max(used, default=0)
    return (states * mask[..., None].to(states.dtype))[:, :n], mask[:, :n]


def warn_truncated(
    tokenizer: Any,
    prompts: Sequence[str],
    max_length: int | None = None,
    quoted: Callable[[str], str | None] | None = None,
) -> None:
    """Warn once of all prompts of more than ``max_length`` tokens (default: the tokenizer's).

    ``quoted`` returns what the tokenizer reads of a prompt: its quotations, or None.
    """
    max_length = max_length or tokenizer.model_max_length
    room, where = max_length - tokenizer.num_special_tokens_to_add(), ""
    if quoted is not None:
        where = " in quotation marks"
    with one_truncation_warning() as found:
        for prompt in dict.fromkeys(prompts):
            text = prompt if quoted is None else quoted(prompt) or ""
            length = len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
            if length > room:
                found.setdefault(prompt, (length, room, where))


@contextmanager
def one_truncation_warning() -> Iterator[TooLong]:
    """Give all prompts that ``warn_truncated`` finds in this context one warning, with a count.

    Yields the prompts found, with their tokens, the tokens that the text encoder reads, and where
    in the prompt these are.
    """
    outer = _too_long.get()
    if outer is not None:
        yield outer
        return
    found: TooLong = {}
    token = _too_long.set(found)
    try:
        yield found
    finally:
        _too_long.reset(token)
    if not found:
        return
    prompt, (length, room, where) = next(iter(found.items()))
    named = f"prompt {short_repr(prompt)} has {length} tokens{where}"
    if len(found) > 1:
        named = f"{len(found)} prompts are too long: for example, {named}"
    warnings.warn(
        f"{named}, but the text encoder reads only the first {room} and ignores the rest; shorten "
        f"the prompt{'s' * (len(found) > 1)}.",
        UserWarning,
        stacklevel=4,
    )


def ragged(states: list[Tensor]) -> Conditioning:
    """Make a Conditioning of prompts with a state [n, D] for each of their own n tokens.

    Examples
    --------
    >>> import torch
    >>> condition = ragged([torch.ones(2, 4), torch.ones(3, 4)])
    >>> condition["states"].shape, condition["n_tokens"].tolist()
    (torch.Size([2, 3, 4]), [2, 3])
    >>> [(length, rows.tolist()) for length, rows in rows_of_each_length(condition)]
    [(2, [0]), (3, [1])]
    """
    return Conditioning(
        states=pad_sequence(states, batch_first=True),
        n_tokens=torch.tensor([len(part) for part in states], device=states[0].device),
    )


def rows_of_each_length(condition: Conditioning) -> Iterator[tuple[int, Tensor]]:
    """Yield each number of tokens of a ``ragged`` condition, and the rows that have it."""
    lengths = condition["n_tokens"]
    for length in lengths.unique().tolist():
        yield length, (lengths == length).nonzero()[:, 0]


def padded_alike(parts: list[Conditioning]) -> list[Conditioning]:
    """Pad all parts to the same length of text.

    Some pipelines pad prompts only to the longest of a batch.
    """

    def padded(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim == 1:
            return tensor
        missing = max(part[name].shape[1] for part in parts) - tensor.shape[1]
        return F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, missing))

    return [
        Conditioning(**{name: padded(name, tensor) for name, tensor in part.tensors.items()})
        for part in parts
    ]


def warn_of_unknown_words(prompts: Iterable[str], known_words: Collection[str]) -> None:
    """Warn of words that the text encoder was not trained on."""
    words = dict.fromkeys(word for prompt in prompts for word in re.findall(r"\w+", prompt.lower()))
    unknown = [word for word in words if word not in known_words]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        warnings.warn(
            f"the model does not know {', '.join(map(repr, unknown[:5]))}{more}: its captions had "
            f"{len(known_words)} words only, and its answers for others are meaningless. Name the "
            f"classes in words that it knows ({', '.join(sorted(known_words)[:8])}, ...), or set "
            "backend to a model that knows them.",
            UserWarning,
            stacklevel=2,
        )
