"""Load diffusers pipelines by name: find them, check that they are safe, load each once."""

from .cache import clear_model_cache
from .convert import Conversion, convert_weights
from .load import load_pipeline
from .origin import Origin, resolve_name

__all__ = [
    "Conversion",
    "Origin",
    "clear_model_cache",
    "convert_weights",
    "load_pipeline",
    "resolve_name",
]
