"""Sensitive attributes as group names: sex, ages cut at thresholds, intersections.

Group order is the paper's (DATASETS.md section 0). An unknown value is the empty string.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from fairtune_hf.data.naming import unknown_name

SEX_GROUPS = ("M", "F")
_SEX = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F"}
OLDEST = 120.0
JOINT = "+"


def sex_groups(values: pd.Series) -> pd.Series:
    """Map spellings of male and female to M and F; all else is unknown."""
    return values.fillna("").astype(str).str.strip().str.lower().map(_SEX).fillna("").astype(str)


def read_ages(values: pd.Series) -> tuple[pd.Series, list[str]]:
    """Return ages in years as floats (NaN where unknown) and a warning for values that are none.

    `"058Y"` is 58 years, `"006M"` half a year. A negative age, one above 120, a date or a word
    counts as unknown.
    """
    text = values.fillna("").astype(str).str.strip()
    dicom = text.str.extract(r"^(\d{1,3})([YMWD])$", flags=re.IGNORECASE)
    per_year = dicom[1].str.upper().map({"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25})
    ages = pd.to_numeric(text, errors="coerce").fillna(
        pd.to_numeric(dicom[0], errors="coerce") / per_year
    )
    ages = ages.astype(float).where((ages >= 0) & (ages <= OLDEST))
    odd = text[ages.isna() & (text != "") & ~text.str.lower().isin(["unknown", "nan", "none"])]
    if odd.empty:
        return ages, []
    # No value is quoted: it may be a date of birth, and warnings are handed on with a run.
    message = (
        f"{len(odd)} ages are not a number of years between 0 and {OLDEST:g} and count as unknown"
    )
    return ages, [message]


def parse_thresholds(value: object) -> tuple[float, ...]:
    """Read one threshold or several (`60`, `"40,60"`, `[40, 60]`) as rising floats.

    Raises:
        ValueError: if a part is no number or the numbers do not rise.
    """
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    try:
        numbers = tuple(float(p) for p in parts)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or list(numbers) != sorted(set(numbers)) or not np.isfinite(numbers).all():
        raise ValueError(
            f"age_threshold must be a number or rising numbers separated by commas, such as 60 or "
            f"40,60; {value!r} came."
        )
    return numbers


def threshold_groups(thresholds: Sequence[float], boundary: str = "gt") -> tuple[str, ...]:
    """Name the groups that `thresholds` make, from the lowest to the highest.

    >>> threshold_groups([60])
    ('<=60', '>60')
    >>> threshold_groups([40, 60], "ge")
    ('<40', '40 to <60', '>=60')
    """
    cuts = [f"{t:g}" for t in thresholds]
    if boundary == "ge":
        middle = [f"{a} to <{b}" for a, b in itertools.pairwise(cuts)]
        return (f"<{cuts[0]}", *middle, f">={cuts[-1]}")
    middle = [f">{a} to {b}" for a, b in itertools.pairwise(cuts)]
    return (f"<={cuts[0]}", *middle, f">{cuts[-1]}")


def bin_values(values: pd.Series, thresholds: Sequence[float], boundary: str = "gt") -> pd.Series:
    """Put numbers into the groups of `threshold_groups`; NaN is unknown.

    With `boundary="gt"` a value equal to a threshold falls in the lower group, with `"ge"` in the
    upper one. The comparison is on the number as it is, not on a rounded one.
    """
    names = np.asarray(threshold_groups(thresholds, boundary), dtype=object)
    numbers = values.to_numpy(dtype=float)
    side: Literal["left", "right"] = "left" if boundary == "gt" else "right"
    codes = np.searchsorted(np.asarray(thresholds), numbers, side=side)
    result = np.where(np.isnan(numbers), "", names[np.minimum(codes, len(names) - 1)])
    return pd.Series(result, index=values.index, dtype=object)


def attribute_parts(sensitive: str, valid: Sequence[str]) -> list[str]:
    """Split `age+sex` into its parts and check each.

    Raises:
        ValueError: for a part that is not one of `valid`, the closest one offered.
    """
    parts = [p.strip() for p in sensitive.split(JOINT)]
    for part in parts:
        if part not in valid:
            raise unknown_name("attribute", part, list(valid))
    if len(set(parts)) != len(parts):
        raise ValueError(
            f"an intersection must name different attributes; {sensitive!r} came. "
            "Name each once, as in age+sex."
        )
    return parts


def intersect(
    frame: pd.DataFrame, parts: Sequence[str], groups: Mapping[str, tuple[str, ...]]
) -> tuple[pd.Series, tuple[str, ...]]:
    """Cross the attributes of `parts`; the last one varies slowest, as in the paper's age x sex.

    A row that is unknown in one part is unknown in the intersection.
    """
    names: list[str] = list(groups[parts[0]])
    for part in parts[1:]:
        names = [f"{left}{JOINT}{right}" for right in groups[part] for left in names]
    joint = frame[parts[0]].astype(str)
    known = joint != ""
    for part in parts[1:]:
        known &= frame[part] != ""
        joint = joint + JOINT + frame[part].astype(str)
    return joint.where(known, ""), tuple(names)
