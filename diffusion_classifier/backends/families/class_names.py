"""Look up classes by name or index."""

from __future__ import annotations

from difflib import get_close_matches

from ...errors import InputValueError


def find_class(prompt: str, names: dict[str, set[int]], n_classes: int) -> int:
    """Return the index of the class that a prompt names.

    Parameters
    ----------
    prompt : str
        A name, several comma-separated names of the same class, or an index. Case is ignored
        unless a name has exactly this spelling.
    names : dict of str to set of int
        Indices of the classes of each name.
    n_classes : int

    Returns
    -------
    int

    Raises
    ------
    InputValueError
        If no class or more than one class matches.

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
            f"{prompt!r} is not a class of this model, which knows classes by number only: give "
            f"{indices}, or set prompts={{label: index}} with each index as a string."
        )
    lower = {name.lower(): name for name in names}
    close = [lower[name] for name in get_close_matches(prompt.lower(), lower)]
    meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise InputValueError(
        f"{prompt!r} is not a class of this model, which reads class names and not sentences: "
        f"give one of its names or {indices}, or set prompts={{label: name}}.{meant}"
    )


def _classes_called(name: str, names: dict[str, set[int]]) -> set[int]:
    """Return the classes of exactly this name or, if there are none, of this name in any case."""
    if name in names:
        return names[name]
    same = [indices for other, indices in names.items() if other.lower() == name.lower()]
    return set().union(*same)
