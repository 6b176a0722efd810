"""Numbers as JSON has them: it knows neither NaN nor infinity."""

from __future__ import annotations

import math
from typing import Any


def json_able(value: Any) -> Any:
    """Return the value with None for numbers that are not finite and lists for tuples, at any depth."""
    if isinstance(value, dict):
        return {key: json_able(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_able(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
