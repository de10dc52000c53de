"""From labels to prompts: a label, a template or several, and the strings a text encoder reads.

A *template* holds plain slots, ``"a photo of a {}"``, each filled with the label. Nothing else is
allowed in braces: formatting fields such as ``{0.__class__}`` would read attributes of the label,
and ``{name}`` can only be a mistake. A dictionary gives each label its own *literal* prompts, for
labels that aren't the words to say ("n02123045", 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

import numpy as np

from ..errors import InputTypeError, InputValueError

ADVICE = 'write one or more plain {} where the label goes, such as "a photo of a {}"'


def make_prompts(
    labels: Sequence[Any] | np.ndarray,
    prompts: str | Sequence[str] | Mapping[Any, str | Sequence[str]] | None,
    default_template: str,
) -> list[list[str]]:
    """Prompts of each label, in the order of the labels.

    Parameters
    ----------
    labels : sequence of length K
        Class labels of any type; ``str(label)`` fills the slots.
    prompts : str, list of str, dict or None
        A template, several templates, or ``{label: prompt or [prompts]}``. The prompts in a
        dictionary are taken literally, and ``""`` is the unconditional prompt; labels it has
        beyond ``labels`` are ignored. None: ``default_template``.
    default_template : str
        Template used when ``prompts`` is None.

    Returns
    -------
    list of list of str, of length K
        One or more prompts per label.

    Raises
    ------
    ValueError
        If a template has no slot or anything but plain ``{}`` in braces, a label is missing from
        the dictionary, there are no prompts or blank ones, or two labels share a prompt.
    TypeError
        If a template or prompt is not a string.

    Examples
    --------
    >>> make_prompts(["cat", "dog"], None, "a photo of a {}")
    [['a photo of a cat'], ['a photo of a dog']]
    >>> make_prompts([3], ["the digit {}", "a handwritten {}"], "a photo of a {}")
    [['the digit 3', 'a handwritten 3']]
    >>> make_prompts([0, 1], {0: "a cat", 1: ["a dog", "a puppy"]}, "a photo of a {}")
    [['a cat'], ['a dog', 'a puppy']]
    """
    if isinstance(prompts, Mapping):
        made = _look_up(labels, prompts)
    else:
        templates = _strings(default_template if prompts is None else prompts, "prompts")
        n_slots = [_count_slots(template) for template in templates]
        made = [
            [t.format(*[str(label)] * n) for t, n in zip(templates, n_slots, strict=True)]
            for label in labels
        ]
    _check_distinct(labels, made)
    return made


def _look_up(labels: Iterable[Any], prompts: Mapping[Any, Any]) -> list[list[str]]:
    """Literal prompts of each label; numpy scalars find the keys they equal."""
    missing = [label for label in labels if label not in prompts]
    if missing:
        raise InputValueError(
            f"prompts has no prompt for {_listed(missing)}; it has {_listed(prompts)}. "
            "Add the missing labels, or give a template to be filled with each label."
        )
    made = []
    for label in labels:
        name = f"prompts[{_plain(label)!r}]"
        made.append(_strings(prompts[label], name))
        if any(prompt and not prompt.strip() for prompt in made[-1]):
            raise InputValueError(f'{name} is blank; use "" for the unconditional prompt.')
    return made


def _strings(value: Any, name: str) -> list[str]:
    """A string or a list of them as a list."""
    if isinstance(value, str):
        return [str(value)]
    if not isinstance(value, list | tuple):
        raise InputTypeError(
            f"{name} is of type {type(value).__name__}; give a string or a list of strings."
        )
    if not value:
        raise InputValueError(f"{name} is empty; give at least one string.")
    for i, item in enumerate(value):
        if not isinstance(item, str):
            raise InputTypeError(f"{name}[{i}] is of type {type(item).__name__}; give a string.")
    return [str(item) for item in value]


def _count_slots(template: str) -> int:
    """Number of plain slots in a template that holds nothing else in braces."""
    try:
        fields = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        raise InputValueError(f"template {template!r}: {error}; {ADVICE}.") from None
    for name, spec, conversion in fields:
        if name or spec or conversion:
            raise InputValueError(f"template {template!r} has more than {{}} in braces; {ADVICE}.")
    if not fields:
        raise InputValueError(
            f"template {template!r} has no slot, so every class would get the same prompt; "
            f"{ADVICE}."
        )
    return len(fields)


def _check_distinct(labels: Sequence[Any] | np.ndarray, made: list[list[str]]) -> None:
    """Refuse a prompt shared by two labels: nothing could ever tell them apart."""
    owner: dict[str, int] = {}
    for k, prompts in enumerate(made):
        for prompt in prompts:
            first = owner.setdefault(prompt, k)
            if first != k:
                raise InputValueError(
                    f"labels {_plain(labels[first])!r} and {_plain(labels[k])!r} share the prompt "
                    f"{prompt!r} and could not be told apart; give each its own."
                )


def _plain(label: Any) -> Any:
    """A numpy scalar as the Python value it equals, so that messages read 'cat'."""
    return label.item() if isinstance(label, np.generic) else label


def _listed(labels: Iterable[Any]) -> str:
    return ", ".join(repr(_plain(label)) for label in labels) or "none"
