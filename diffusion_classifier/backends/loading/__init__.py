"""From a name to a diffusers pipeline: where it is, whether it is safe to load, loaded once."""

from .cache import clear_model_cache
from .load import load_pipeline
from .origin import Origin, resolve_name

__all__ = ["Origin", "clear_model_cache", "load_pipeline", "resolve_name"]
