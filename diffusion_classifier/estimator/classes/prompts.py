"""Prompts made from labels.

A *template* such as ``"a photo of a {}"`` has one or more slots ``{}``, each filled with the
label. Braces may hold nothing else: fields such as ``{0.__class__}`` would read attributes of the
label, and ``{name}`` can only be a mistake. A dictionary gives each label its own prompts, which
are used literally. It suits labels that are not words, such as "n02123045" or 3.

A backend's own template gets the right article: "a photo of a {}" makes "a photo of an apple". A
template of the user is left as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

import numpy as np

from ...errors import InputTypeError, InputValueError
from ...utils.display import short_repr
from .labels import plain_value

ADVICE = 'write prompts with one or more plain {} where the label goes, such as "a photo of a {}"'
_ARTICLE = re.compile(r"\b([Aa]) (?=\{\})")  # right before a slot
# What "an" goes before: a vowel letter, a silent h, "eight", "eleven" and "eighteen" in digits; but
# not a vowel that is said as in "you" or "one".
_AN = re.compile(
    r"(?!eu|ewe|once\b|one\b|oui|ubi|ufo|ukulele|unan|uni(?![dmn])|ur[aio]|us[aeu]|ut[ei])[aeiou]"
    r"|heir|hones|honou?r|hour|8|1[18](?!\d)"
)

Prompts = str | Sequence[str] | Mapping[Any, str | int | Sequence[str | int]] | None


def make_prompts(
    labels: Sequence[Any] | np.ndarray,
    prompts: Prompts,
    default_template: str,
    *,
    indices: bool = False,
    articles: bool = True,
) -> list[list[str]]:
    """Make the prompts of each label, in the order of the labels.

    Parameters
    ----------
    labels : sequence of length K
        Class labels of any type; ``str(label)`` fills the slots.
    prompts : str, list of str, dict or None
        A template, several templates, or ``{label: prompt or [prompts]}``. Prompts in a
        dictionary are used literally; ``""`` is the unconditional prompt. Entries for labels that
        are not in ``labels`` are ignored. None uses ``default_template``.
    default_template : str
        Template used when ``prompts`` is None.
    indices : bool, default=False
        Whether prompts in a dictionary may be integers, which are class indices.
    articles : bool, default=True
        Whether "a" right before a slot of ``default_template`` becomes "an" where it should.

    Returns
    -------
    list of list of str, of length K
        One or more prompts per label.

    Raises
    ------
    InputValueError
        If a template has no slot or has anything but ``{}`` in braces, a label in a template is
        blank, a label is missing from the dictionary, prompts are empty, blank or no valid
        Unicode, or two labels share a prompt.
    InputTypeError
        If a template or prompt is not a string, nor an integer where ``indices`` allows it.

    Examples
    --------
    >>> make_prompts(["cat", "dog"], None, "a photo of a {}")
    [['a photo of a cat'], ['a photo of a dog']]
    >>> make_prompts(["ant", "unicorn", "hourglass"], None, "a {}")
    [['an ant'], ['a unicorn'], ['an hourglass']]
    >>> make_prompts([3], ["the digit {}", "a handwritten {}"], "a photo of a {}")
    [['the digit 3', 'a handwritten 3']]
    >>> make_prompts([0, 1], {0: "a cat", 1: ["a dog", "a puppy"]}, "a photo of a {}")
    [['a cat'], ['a dog', 'a puppy']]
    """
    if isinstance(prompts, Mapping):
        made = _look_up(labels, prompts, indices)
    else:
        templates = _strings(default_template if prompts is None else prompts, "prompts")
        n_slots = [_count_slots(template) for template in templates]
        articles = articles and prompts is None
        made = [
            [
                (with_article(t, label) if articles else t).format(*[label] * n)
                for t, n in zip(templates, n_slots, strict=True)
            ]
            for label in _readable(labels)
        ]
    _check_made(labels, made)
    return made


def with_article(template: str, label: str) -> str:
    """Change "a" right before a slot to "an" if the label starts with the sound of a vowel.

    Examples
    --------
    >>> with_article("a photo of a {}", "apple"), with_article("A {}", "university")
    ('a photo of an {}', 'A {}')
    """
    letters = unicodedata.normalize("NFKD", label).lower().lstrip(" \"'([")
    return _ARTICLE.sub(r"\1n ", template) if _AN.match(letters) else template


def _readable(labels: Iterable[Any]) -> list[str]:
    """Return labels as strings; raise an InputValueError if one is blank."""
    names = [str(label) for label in labels]
    for name in names:
        if not name.strip():
            raise InputValueError(
                f"the label {short_repr(name)} is blank, so its prompt names no class; name the "
                "class in words, or pass prompts={label: prompt}."
            )
    return names


def _look_up(labels: Iterable[Any], prompts: Mapping[Any, Any], indices: bool) -> list[list[str]]:
    """Look up the literal prompts of each label; numpy scalars match equal Python keys."""
    if not prompts:
        raise InputValueError(f"prompts={prompts!r} is empty; give {{label: prompt}}.")
    missing = [label for label in labels if label not in prompts]
    if missing:
        raise InputValueError(
            f"prompts has no prompt for {_listed(missing)}; it has {_listed(prompts)}. "
            "Add the missing labels, or pass a template instead."
        )
    made = []
    for label in labels:
        name = f"prompts[{plain_value(label)!r}]"
        made.append(_strings(prompts[label], name, indices=indices))
        if any(prompt and not prompt.strip() for prompt in made[-1]):
            raise InputValueError(f'{name} is blank; use "" for the unconditional prompt.')
    return made


def _strings(value: Any, name: str, *, indices: bool = False) -> list[str]:
    """Check a string or a list of strings and return it as a list; ``indices`` allows integers."""

    def is_string(item: Any) -> bool:
        is_index = isinstance(item, int | np.integer) and not isinstance(item, bool)
        return isinstance(item, str) or (indices and is_index)

    if is_string(value):
        return [str(value)]
    if not isinstance(value, list | tuple):
        raise InputTypeError(
            f"{name}={short_repr(value)} is of type {type(value).__name__}; give a string or a "
            "list of strings."
        )
    if not value:
        raise InputValueError(f"{name}={short_repr(value)} is empty; give at least one string.")
    for i, item in enumerate(value):
        if not is_string(item):
            raise InputTypeError(
                f"{name}[{i}]={short_repr(item)} is of type {type(item).__name__}; give a string."
            )
    return [str(item) for item in value]


def _count_slots(template: str) -> int:
    """Count the slots ``{}`` of a template; raise if it has none or has other fields."""
    try:
        fields = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError as error:
        raise InputValueError(f"template {short_repr(template)}: {error}; {ADVICE}.") from None
    for name, spec, conversion in fields:
        if name or spec or conversion:
            raise InputValueError(
                f"template {short_repr(template)} has text inside {{}}; {ADVICE}."
            )
    if not fields:
        raise InputValueError(
            f"template {short_repr(template)} has no slot, so every class would get the same "
            f"prompt; {ADVICE}."
        )
    return len(fields)


def _check_made(labels: Sequence[Any] | np.ndarray, made: list[list[str]]) -> None:
    """Raise if a prompt is no text, or if two labels share one, as their errors would be equal."""
    owner: dict[str, int] = {}
    for k, prompts in enumerate(made):
        for prompt in prompts:
            try:
                prompt.encode()
            except UnicodeEncodeError as error:
                raise InputValueError(
                    f"the prompt {short_repr(prompt)} of label {short_repr(labels[k])} is no valid "
                    f"Unicode text ({error.reason}); read the labels in the right encoding."
                ) from error
            first = owner.setdefault(prompt, k)
            if first != k:
                raise InputValueError(
                    f"labels {plain_value(labels[first])!r} and {plain_value(labels[k])!r} share "
                    f"the prompt {short_repr(prompt)} and could not be told apart; give each its "
                    "own."
                )


def _listed(labels: Iterable[Any]) -> str:
    return ", ".join(repr(plain_value(label)) for label in labels) or "none"
