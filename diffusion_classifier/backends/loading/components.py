"""Which class each component of a pipeline may have.

``model_index.json`` names a library and a class for every component, and whoever shares a model
can write anything there. A class is accepted only if the pipeline's own signature expects it, or
if the family lists it in ``other_classes``. Any scheduler serves as a scheduler, and any tokenizer
as a tokenizer. So a folder cannot smuggle in a pipeline or a network that loads files of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import Any, get_args, get_type_hints

from ...errors import InputValueError
from ...utils.quiet import quiet
from ..families.base import Family
from .origin import INDEX

LIBRARIES = {"diffusers": "diffusers", "transformers": "transformers"}  # names and modules


def component_classes(
    index: dict[str, Any], components: Sequence[str], family: Family, pipeline_class: Any, name: str
) -> dict[str, type]:
    """Return the class of each component, having checked that it is one that is expected.

    Parameters
    ----------
    index : dict
        Contents of ``model_index.json``.
    components : sequence of str
    family : Family
    pipeline_class : type
    name : str
        Folder or Hub id, for messages.

    Raises
    ------
    InputValueError
        If a component is missing, not of diffusers or transformers, or of another class.
    """
    classes = {}
    for component in components:
        entry = index.get(component)
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, str]:
            refiner = " (The refiner of SDXL has none: use the base model.)"
            raise InputValueError(
                f"{INDEX} of {name} names no {component}, which {index['_class_name']} needs; "
                "save the whole pipeline with pipeline.save_pretrained(...)."
                f"{refiner if component in family.text_encoders else ''}"
            )
        library, kind = (part[:80] for part in entry)
        module = LIBRARIES.get(library) or family.libraries.get(library)
        if module is None:
            raise InputValueError(
                f"{INDEX} of {name} takes {component} from {library!r} (class {kind!r}); only "
                f"classes of {' and '.join(LIBRARIES)} are loaded, so that no other code runs. "
                "If you trust it, load it with diffusers and pass DiffusersBackend(pipeline)."
            )
        expected = _expected(pipeline_class, component)
        others = family.other_classes.get(component, ())
        found = _find(module, kind)
        if found is None or not (issubclass(found, expected) or kind in others or is_dummy(found)):
            names = [*(other.__name__ for other in expected), *others]
            raise InputValueError(
                f"{INDEX} of {name} names {library}.{kind} as {component}, but "
                f"{index['_class_name']} takes {' or '.join(names)}. If you trust it, load it with "
                "diffusers and pass DiffusersBackend(pipeline)."
            )
        classes[component] = found
    return classes


def unused_components(
    index: dict[str, Any], components: Sequence[str], pipeline_class: Any, name: str
) -> list[str]:
    """Return the components of the index that are not to be loaded.

    Parameters are as in :func:`component_classes`; ``components`` are to be loaded.

    Raises
    ------
    InputValueError
        If the index has something else than a library and a class, or two nulls, for one.
    """
    optional = getattr(pipeline_class, "_optional_components", ())
    unused = [
        component
        for component, parameter in signature(pipeline_class.__init__).parameters.items()
        if component in index
        and component not in components
        and (parameter.default is parameter.empty or component in optional)
    ]
    for component in unused:
        entry = index[component]
        if not isinstance(entry, list) or len(entry) != 2:
            raise InputValueError(
                f"{INDEX} of {name} gives {component} neither a library and a class nor two "
                "nulls; save the whole pipeline with pipeline.save_pretrained(...)."
            )
    return unused


def _expected(pipeline_class: Any, component: str) -> tuple[type, ...]:
    """Return the classes that a component may be an instance of, from the pipeline's signature."""
    from diffusers import ModelMixin, SchedulerMixin
    from diffusers.schedulers import KarrasDiffusionSchedulers
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    try:
        hint = get_type_hints(pipeline_class.__init__).get(component)
    except (NameError, TypeError):  # the pipeline imports some types for type checkers only
        hint = None
    named = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type)]
    for base in (SchedulerMixin, PreTrainedTokenizerBase):
        if any(issubclass(kind, base) for kind in named):
            return (base,)
    if KarrasDiffusionSchedulers in named:
        return (SchedulerMixin,)
    networks = [kind for kind in named if issubclass(kind, (ModelMixin, PreTrainedModel))]
    # a pipeline without type hints: anything but another pipeline
    return tuple(networks) or (ModelMixin, PreTrainedModel, PreTrainedTokenizerBase, SchedulerMixin)


def _find(module: str, name: str) -> type | None:
    """Return the class of this name, or None if the module has none."""
    with quiet():
        found = getattr(import_module(module), name, None)
    return found if isinstance(found, type) else None


def is_dummy(kind: type) -> bool:
    """Whether a class only stands in for one whose optional package is not installed.

    Its ``from_pretrained`` raises an ImportError that names the package.
    """
    return ".dummy_" in kind.__module__
