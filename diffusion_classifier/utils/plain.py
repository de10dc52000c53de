"""Values that JSON can hold: it has no infinity and no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """Return a value with None in place of all numbers that are not finite, also inside of it.

    Examples
    --------
    >>> finite({"mean": (0.5, float("nan"), float("inf")), "n": 3})
    {'mean': [0.5, None, None], 'n': 3}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
