"""Correction of p-values when several methods are compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def holm_p_values(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted by Holm's step-down rule, in the order given.

    Rejecting where the adjusted value is at most 5 % keeps the chance of any false rejection at
    5 %, whatever the dependence. NaN (an undefined comparison) stays NaN and is not counted.

    Raises:
        ValueError: If a p-value is outside [0, 1].

    Source: Holm 1979, Scandinavian Journal of Statistics 6.

    Example:
        >>> holm_p_values({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    wrong = {name: p for name, p in p_values.items() if p < 0 or p > 1}
    if wrong:
        name, value = next(iter(wrong.items()))
        raise ValueError(f"p_values: expected fractions in [0, 1], got {value} for {name!r}.")
    defined = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    adjusted, running = dict.fromkeys(p_values, float("nan")), 0.0
    for rank, (p, name) in enumerate(defined):
        running = max(running, min(1.0, (len(defined) - rank) * p))
        adjusted[name] = running
    return adjusted
