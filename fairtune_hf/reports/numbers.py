"""How numbers and counts are written for people: decimals, intervals, small groups hidden.

Everything a reader sees goes through here, so that a count of fewer than ten people is hidden
in the page, the card, the tables and the figures' CSV files alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeGuard

from fairtune_hf.data.checks import FEW
from fairtune_hf.data.small_cells import SMALL

MISSING = "\u2013"


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value read from JSON or CSV is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fraction(value: object, digits: int = 3, sign: str = "-") -> str:
    """Write a fraction of [0, 1] with three decimals; an undefined one as a dash."""
    if not is_number(value):
        return MISSING
    return f"{float(value):{sign}.{digits}f}".replace("-", "\u2212")


def difference(value: object, digits: int = 3) -> str:
    """Write a difference with its sign."""
    return fraction(value, digits, sign="+")


def interval(bounds: Sequence[object] | None, write: Callable[[object], str] = fraction) -> str:
    """Write an interval as `0.71 to 0.83`; an undefined one as an empty string."""
    if not bounds or len(bounds) != 2 or not all(is_number(bound) for bound in bounds):
        return ""
    return " to ".join(map(write, bounds))


def signed_interval(bounds: Sequence[object] | None) -> str:
    """Write the interval of a difference, with signs."""
    return interval(bounds, difference)


def count(value: object) -> str:
    """Write a count; from 1 to 9 as `<10`."""
    if not is_number(value):
        return MISSING
    whole = int(value)
    return SMALL if 0 < whole < FEW else f"{whole:,}".replace(",", "\u202f")


def positives(n: object, value: object) -> str:
    """Write how many of `n` are positive, hiding either class when it has fewer than ten."""
    if not is_number(n) or not is_number(value):
        return MISSING
    whole = int(value)
    others = int(n) - whole
    if 0 < int(n) < FEW:
        return SMALL
    if 0 < others < FEW and whole >= FEW:
        return f"all but {SMALL}"
    return count(whole)


def seconds(value: object) -> str:
    """Write a duration in the unit a person would use."""
    if not is_number(value):
        return MISSING
    number = float(value)
    if number < 100:
        return f"{number:.0f} s" if number >= 10 else f"{number:.1f} s"
    if number < 5400:
        return f"{number / 60:.0f} min"
    return f"{number / 3600:.1f} h"


def learning_rate(value: object) -> str:
    """Write a learning rate with two significant digits."""
    return f"{float(value):.2g}" if is_number(value) else MISSING


def _names(message: str, group: str) -> bool:
    """Tell whether a message speaks of a group: its name stands there as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(group)}(?!\w)", message) is not None


def hide_small_counts(message: str, small_groups: Iterable[str]) -> str:
    """Replace the one-digit counts of a warning that speaks of a group of fewer than ten."""
    if not any(name and _names(message, name) for name in small_groups):
        return message
    return re.sub(r"(?<![\w.,\-<])[1-9](?![\w.,%\-]*\w)", SMALL, message)
