"""Identify a model by a hash of its components' configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Entries that saving a model may add or remove.
NOT_IDENTITY = ("architectures", "dtype", "transformers_version")


def hash_configs(components: Mapping[str, Any]) -> str:
    """Return a SHA-256 hash of the configurations of named components; weights are not read.

    A dict in place of a component is taken as its configuration.
    """
    configs = {name: _config(component) for name, component in components.items()}
    return hashlib.sha256(json.dumps(configs, sort_keys=True, default=str).encode()).hexdigest()


def _config(component: Any) -> dict[str, Any]:
    """Return the entries that define a component, whatever the library version, dtype or folder.

    Options set to None or False are left out, so that new options of later library versions do
    not change the hash.
    """
    if component is None:
        return {}
    config = component if isinstance(component, dict) else getattr(component, "config", None)
    if config is None:  # a tokenizer, or a processor of texts and images, which has one
        tokenizer = component if hasattr(component, "model_max_length") else component.tokenizer
        return {"n_tokens": len(tokenizer), "max_length": tokenizer.model_max_length}
    config = config.to_dict() if hasattr(config, "to_dict") else config
    return {
        key: value
        for key, value in config.items()
        if not (key.startswith("_") or key in NOT_IDENTITY)
        and value is not None
        and value is not False
    }
