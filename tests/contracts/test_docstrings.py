"""Every public object has a docstring that numpydoc accepts."""

import dataclasses
import importlib
import inspect

import pytest
from numpydoc.validate import validate

from diffusion_classifier import backends

MODULES = (
    "diffusion_classifier",
    "diffusion_classifier.backends",
    "diffusion_classifier.backends.base",
    "diffusion_classifier.backends.exact",
    "diffusion_classifier.backends.families",
    "diffusion_classifier.backends.families.base",
    "diffusion_classifier.backends.families.parts.class_names",
    "diffusion_classifier.backends.families.parts.text",
    "diffusion_classifier.backends.resolve",
    "diffusion_classifier.callbacks",
    "diffusion_classifier.datasets",
    "diffusion_classifier.demo",
    "diffusion_classifier.evaluation",
    "diffusion_classifier.explaining",
    "diffusion_classifier.hub",
    "diffusion_classifier.images",
    "diffusion_classifier.images.latents",
    "diffusion_classifier.images.loader",
    "diffusion_classifier.images.resize",
    "diffusion_classifier.images.sequence",
    "diffusion_classifier.learner",
    "diffusion_classifier.matching",
    "diffusion_classifier.noise",
    "diffusion_classifier.noise.draws",
    "diffusion_classifier.noise.prediction",
    "diffusion_classifier.noise.schedule",
    "diffusion_classifier.noise.variational",
    "diffusion_classifier.plotting",
    "diffusion_classifier.pruners",
    "diffusion_classifier.records",
    "diffusion_classifier.records.table",
    "diffusion_classifier.samplers",
    "diffusion_classifier.scoring",
    "diffusion_classifier.scoring.calibration",
    "diffusion_classifier.scoring.weighting",
    "diffusion_classifier.shortlist",
    "diffusion_classifier.store",
    "diffusion_classifier.testing",
)
# Where every class and function has an example.
FACE = (
    "diffusion_classifier.DiffusionClassifier",
    "diffusion_classifier.ErrorTable",
    "diffusion_classifier.Latents",
    "diffusion_classifier.as_images",
    *(f"diffusion_classifier.backends.{name}" for name in backends.__all__),
    "diffusion_classifier.backends.resolve.load_backend",
    "diffusion_classifier.datasets.load_",
    "diffusion_classifier.evaluation.",
    "diffusion_classifier.explaining.",
    "diffusion_classifier.hub.",
    "diffusion_classifier.images.",
    "diffusion_classifier.matching.",
    "diffusion_classifier.noise.schedule.",
    "diffusion_classifier.plotting.",
    "diffusion_classifier.pruners.",
    "diffusion_classifier.samplers.",
    "diffusion_classifier.scoring.calibration.",
    "diffusion_classifier.scoring.weighting.",
    "diffusion_classifier.shortlist.",
)
# What is not asked for: layout (GL), capitals and full stops of fragments, the extended summary,
# See Also and Notes sections, descriptions of what a type says already, and examples of methods.
IGNORED = {
    "GL01", "GL02", "GL03", "SS05", "SS06", "ES01", "SA01", "SA04", "EX01",
    "PR02", "PR06", "PR07", "PR08", "PR09", "PR10", "RT02", "RT03", "RT04", "RT05", "YD01",
}  # fmt: skip
WITHOUT_SECTIONS = {"PR01", "RT01"}  # where a sentence says both


def public_objects():
    """Public classes and functions by full name."""
    found = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            is_ours = getattr(value, "__module__", "").startswith(module_name)
            if not name.startswith("_") and is_ours and callable(value):
                found[f"{module_name}.{name}"] = value
    return found


def public_methods():
    """Public methods with a docstring of their own, by full name."""
    return {
        f"{full_name}.{name}": member
        for full_name, value in public_objects().items()
        if inspect.isclass(value)
        for name, member in inspect.getmembers(value, inspect.isroutine)
        if not name.startswith("_")
        and (getattr(member, "__module__", "") or "").startswith("diffusion_classifier")
    }


def has_sections(docstring):
    return "Parameters\n---" in docstring or "Returns\n---" in docstring


def complaints(name, ignored):
    """What numpydoc finds wrong with a docstring, apart from what is not asked for."""
    return [error for error in validate(name)["errors"] if error[0] not in ignored]


@pytest.mark.parametrize("name", sorted(public_objects()))
def test_the_docstring_of_a_public_object_is_numpydoc_with_an_example(name):
    value = public_objects()[name]
    has_fields = dataclasses.is_dataclass(value)  # described as attributes
    docstring = inspect.getdoc(value)
    ignored = IGNORED | (WITHOUT_SECTIONS if has_fields or not has_sections(docstring) else set())
    assert complaints(name, ignored) == []
    if name.startswith(FACE) and not inspect.isabstract(value):
        assert ">>>" in docstring, f"{name} has no example"


@pytest.mark.parametrize("name", sorted(public_methods()))
def test_the_docstring_of_a_public_method_is_numpydoc(name):
    method = public_methods()[name]
    docstring = inspect.getdoc(method)  # that of the base class, for one that overrides
    assert docstring, f"{name} has no docstring"
    if method.__doc__ is not None:
        ignored = IGNORED | (set() if has_sections(docstring) else WITHOUT_SECTIONS)
        assert complaints(name, ignored) == []
