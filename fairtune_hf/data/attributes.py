"""Sensitive attributes as group names: sex, ages cut at thresholds, intersections.

Group order is the paper's. An unknown value is the empty string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from fairtune_hf.ages import bin_values, parse_thresholds, read_ages, threshold_groups
from fairtune_hf.naming import unknown_name

__all__ = [
    "JOINT",
    "SEX_GROUPS",
    "attribute_parts",
    "bin_values",
    "intersect",
    "parse_thresholds",
    "read_ages",
    "sex_groups",
    "threshold_groups",
]

SEX_GROUPS = ("M", "F")
_SEX = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F"}
JOINT = "+"


def sex_groups(values: pd.Series) -> pd.Series:
    """Map spellings of male and female to M and F; all else is unknown."""
    return values.fillna("").astype(str).str.strip().str.lower().map(_SEX).fillna("").astype(str)


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
