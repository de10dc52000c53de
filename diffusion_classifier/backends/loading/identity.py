"""Which model it is: a hash of what its components' configurations say of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

NOT_IDENTITY = ("architectures", "dtype", "transformers_version")  # come and go with saving


def hash_configs(components: Mapping[str, Any]) -> str:
    """A sha256 of the configurations of components, by name; weights are not read.

    A component may also be given by its configuration, a dict.
    """
    configs = {name: _config(component) for name, component in components.items()}
    return hashlib.sha256(json.dumps(configs, sort_keys=True, default=str).encode()).hexdigest()


def _config(component: Any) -> dict[str, Any]:
    """What defines a component, whatever the library's version, dtype or folder.

    Options that are off are left out: a newer library that knows more of them changes nothing.
    """
    if component is None:
        return {}
    config = component if isinstance(component, dict) else getattr(component, "config", None)
    if config is None:  # a tokenizer
        return {"n_tokens": len(component), "max_length": component.model_max_length}
    config = config.to_dict() if hasattr(config, "to_dict") else config
    adapters = sorted(getattr(component, "peft_config", None) or ())  # LoRA and its like, by name
    return ({"adapters": adapters} if adapters else {}) | {
        key: value
        for key, value in config.items()
        if not (key.startswith("_") or key in NOT_IDENTITY)
        and value is not None
        and value is not False
    }
