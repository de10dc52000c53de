"""From the name or index of a class to the index that the network reads."""

from __future__ import annotations

from difflib import get_close_matches

from ...errors import InputValueError


def find_class(prompt: str, names: dict[str, set[int]], n_classes: int) -> int:
    """Index of the class that goes by a name, by several (comma-separated), or by its index.

    Upper and lower case are told apart only if that helps.

    Raises
    ------
    ValueError
        If there is no such class or several.

    Examples
    --------
    >>> names = {"tench": {0}, "Tinca tinca": {0}, "crane": {1, 2}}
    >>> names |= {"Cardigan": {3}, "cardigan": {4}}
    >>> [find_class(name, names, 5) for name in ("Tench", "tench, Tinca tinca", "Cardigan", "2")]
    [0, 0, 3, 2]
    >>> find_class("crane", names, 5)
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: 'crane' is the name of classes 1, 2; say which \
with prompts={'crane': '1'}.
    """
    found = set.intersection(*(_classes_called(part.strip(), names) for part in prompt.split(",")))
    if len(found) == 1:
        return found.pop()
    if found:
        several = sorted(found)
        raise InputValueError(
            f"{prompt!r} is the name of classes {', '.join(map(str, several))}; say which with "
            f"prompts={{{prompt!r}: '{several[0]}'}}."
        )
    index = prompt.strip().removesuffix(".0")
    if index.isdecimal() and int(index) < n_classes:
        return int(index)
    indices = f"an index from 0 to {n_classes - 1}"
    if not names:
        raise InputValueError(
            f"{prompt!r} is no class of this model, which knows classes by number only: give "
            f"{indices}, or say which is which with prompts={{label: index}}, the index as a "
            "string."
        )
    lower = {name.lower(): name for name in names}
    close = [lower[name] for name in get_close_matches(prompt.lower(), lower)]
    meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise InputValueError(
        f"{prompt!r} is no class of this model, which reads names of classes and not sentences: "
        f"give one of its names or {indices}, or prompts={{label: name}}.{meant}"
    )


def _classes_called(name: str, names: dict[str, set[int]]) -> set[int]:
    """Classes of this name, in this spelling or else in any upper or lower case."""
    if name in names:
        return names[name]
    same = [indices for other, indices in names.items() if other.lower() == name.lower()]
    return set().union(*same)
