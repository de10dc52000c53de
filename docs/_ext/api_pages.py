"""One page per face of the package, written from its ``__all__``: no public name is missing.

A *face* is a module whose names users import: those of ``FACES`` in this order, then every other
module that has an ``__all__``. ``INSIDE`` are steps of the estimator and of the shell, which only
the package itself imports.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx

PACKAGE = "diffusion_classifier"
FACES = (
    "", "samplers", "pruners", "scoring", "backends", "shortlist", "images", "datasets",
    "callbacks", "errors", "plotting", "explaining", "evaluation", "matching", "records", "store",
    "distributed", "noise",
)  # fmt: skip
INSIDE = (
    "cli",
    "estimator",
    "backends.loading",
    "backends.state",
    "race.devices",
    "strategies",
    "learner",
)


def faces() -> list[str]:
    """Dotted names of all faces, those that users meet first at the front."""
    package = importlib.import_module(PACKAGE)
    found = [f"{PACKAGE}.{name}".rstrip(".") for name in FACES]
    for info in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        inside = info.name.removeprefix(f"{PACKAGE}.")
        hidden = any(part.startswith("_") for part in inside.split("."))
        if hidden or any(inside == name or inside.startswith(f"{name}.") for name in INSIDE):
            continue
        if info.name not in found and hasattr(importlib.import_module(info.name), "__all__"):
            found.append(info.name)
    return found


def public(module: ModuleType) -> list[str]:
    """Names of a face: its ``__all__``, else the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("__")]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def contents() -> dict[str, list[str]]:
    """The names that each face's page documents; a name that two faces show is on the first."""
    pages: dict[str, list[str]] = {}
    seen: set[int] = set()
    for face in faces():
        module = importlib.import_module(face)
        names = [name for name in public(module) if id(getattr(module, name)) not in seen]
        seen |= {id(getattr(module, name)) for name in names}
        if names:
            pages[face] = names
    return pages


def page(face: str, names: list[str]) -> str:
    """A face's page in reStructuredText."""
    module = importlib.import_module(face)
    summary = (module.__doc__ or "").split("\n\n")[0]
    lines = [face, "=" * len(face), "", summary, "", f".. currentmodule:: {face}", ""]
    documented = [name for name in names if inspect.isroutine(getattr(module, name)) or
                  inspect.isclass(getattr(module, name))]  # fmt: skip
    if documented:
        lines += [".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in documented] + [""]
    for name in names:
        if name not in documented:
            lines += [f".. autodata:: {name}", "   :no-value:", ""]
    return "\n".join(lines)


def index(pages: dict[str, list[str]]) -> str:
    """The first page of the API, in reStructuredText."""
    lines = [
        "API", "===", "",
        "Every public name, by the module that it is imported from. "
        ":class:`~diffusion_classifier.DiffusionClassifier` is the one that most programs need.",
        "", ".. list-table::", "   :widths: 34 66", "",
    ]  # fmt: skip
    for face in pages:
        summary = (importlib.import_module(face).__doc__ or "").split("\n\n")[0]
        first = " ".join(summary.split())
        lines += [f"   * - :doc:`{face}`", f"     - {first}"]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    return "\n".join(lines + [f"   {face}" for face in pages] + [""])


def setup(app: Sphinx) -> dict:
    folder = Path(app.srcdir, "api")
    folder.mkdir(exist_ok=True)
    pages = contents()
    texts = {face: page(face, names) for face, names in pages.items()} | {"index": index(pages)}
    for old in folder.glob("*.rst"):
        if old.stem not in texts:
            old.unlink()
    for name, text in texts.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
