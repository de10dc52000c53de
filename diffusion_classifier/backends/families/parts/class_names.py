"""Look up classes by name or index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ....errors import InputValueError

INDEX = "model_index.json"


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


def names_of(id2label: Any) -> dict[str, set[int]]:
    """Return the classes of each name, given each class's names, separated by commas.

    Parameters
    ----------
    id2label : mapping of int or str to str

    Returns
    -------
    dict of str to set of int

    Raises
    ------
    InputValueError
        If it is anything else.

    Examples
    --------
    >>> names_of({0: "tench, Tinca tinca", "1": "crane", 4: "crane"})
    {'tench': {0}, 'Tinca tinca': {0}, 'crane': {1, 4}}
    """
    items: Any = id2label.items() if isinstance(id2label, Mapping) else [("", id2label)]
    names: dict[str, set[int]] = {}
    for index, synonyms in items:
        if not str(index).isdecimal() or not isinstance(synonyms, str):
            raise InputValueError(
                "id2label (in model_index.json) must map the index of each class to its names, "
                f"separated by commas, not {str(index)[:40]!r} to {str(synonyms)[:40]!r}."
            )
        for name in synonyms.split(","):
            names.setdefault(name.strip(), set()).add(int(index))
    return names


def saved_labels(pipeline: Any) -> Mapping[Any, str] | None:
    """Return the names of all classes of a DiTPipeline, or None if it only has ``labels``.

    ``labels`` keeps the last class of each name. All are in the pipeline's configuration, if they
    were registered there, or in the folder or the Hub's cache that it was loaded from.
    """
    if pipeline.config.get("id2label") is not None:
        return pipeline.config["id2label"]
    path = _index_path(pipeline.config.get("_name_or_path"))
    try:
        index = json.loads(path.read_text(encoding="utf-8")) if path else None
        id2label = index["id2label"] if isinstance(index, dict) else None
        last = {name: max(indices) for name, indices in names_of(id2label).items()}
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return id2label if last == pipeline.labels else None  # else the folder has changed


def _index_path(name: Any) -> Path | None:
    """Return the index file of a local folder or of a Hub id in the cache, if there is one."""
    from huggingface_hub import try_to_load_from_cache

    if not name:
        return None
    path: Any = Path(name) / INDEX
    if not path.is_file():
        try:
            path = try_to_load_from_cache(str(name), INDEX)
        except ValueError:  # not a Hub id
            return None
    return Path(path) if isinstance(path, str | Path) else None


def check_kept(
    prompts: Sequence[str], indices: Sequence[int], labels: Mapping[str, int], n_classes: int
) -> None:
    """Raise if a name may be that of an earlier class, too.

    Parameters
    ----------
    prompts : sequence of str
    indices : sequence of int
        The class found for each prompt.
    labels : mapping of str to int
        The last class of each name.
    n_classes : int

    Raises
    ------
    InputValueError
        If earlier classes have no name left, so that later ones have taken them over.

    Examples
    --------
    >>> check_kept(["crane"], [2], {"tench": 0, "crane": 2}, 3)
    Traceback (most recent call last):
    diffusion_classifier.errors.InputValueError: 'crane' is the name of class 2 and perhaps of 1, \
which has no name left: a DiTPipeline keeps only the last class of each name. Say which with \
prompts={'crane': '2'}, or name all again with pipeline.register_to_config(id2label={...}).
    """
    unnamed = sorted(set(range(n_classes)) - set(labels.values())) if labels else []
    for prompt, index in zip(prompts, indices, strict=True):
        earlier = [other for other in unnamed if other < index]
        if earlier and not prompt.strip().removesuffix(".0").isdecimal():
            several = len(earlier) > 1
            some = ", ".join(map(str, earlier[:5])) + (", ..." if len(earlier) > 5 else "")
            raise InputValueError(
                f"{prompt!r} is the name of class {index} and perhaps of {some}, which "
                f"{'have' if several else 'has'} no name left: a DiTPipeline keeps only the last "
                f"class of each name. Say which with prompts={{{prompt!r}: '{index}'}}, or name "
                "all again with pipeline.register_to_config(id2label={...})."
            )
