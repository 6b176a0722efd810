"""Ages in years from a column of values, and numbers cut into groups at thresholds.

One rule for data sets and for audits of predictions, so it imports nothing of the package.
An unknown value is the empty string.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from fairtune_hf.unknown_values import unknown_mask

OLDEST = 120.0
MANY = 10
OLDEST_CODE = 20.0  # numbers up to it may be codes of age groups
DEFAULT_THRESHOLD = "60"
BOUNDARIES = ("gt", "ge")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A word of a column's name, also where a capital letter alone begins it."""


def is_age_name(column: str) -> bool:
    """Tell whether a column's name says that it holds ages.

    >>> [is_age_name(c) for c in ("patient_age", "PatientAge", "age(years)", "stage")]
    [True, True, True, False]
    """
    return "age" in (word.lower() for word in _WORD.findall(column))


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
    odd = text[ages.isna() & ~unknown_mask(text)]
    if odd.empty:
        return ages, []
    # No value is quoted: it may be a date of birth, and warnings are handed on with a run.
    message = (
        f"{len(odd)} ages are not a number of years between 0 and {OLDEST:g} and count as unknown"
    )
    return ages, [message]


def without_impossible(text: pd.Series, name: str) -> tuple[pd.Series, list[str]]:
    """Blank the numbers among groups of ages that are no age, such as 999, and say how many they were.

    >>> without_impossible(pd.Series(["30", "999", "40-60"]), "age")[0].tolist()
    ['30', '', '40-60']
    """
    numbers = pd.to_numeric(text, errors="coerce")
    odd = (numbers < 0) | (numbers > OLDEST)
    if not odd.any():
        return text, []
    return text.mask(odd, ""), [
        f"{int(odd.sum())} values of {name!r} are numbers that are no age, and count as unknown"
    ]


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


def needs_cut(numbers: pd.Series, *, is_age: bool, mostly_numbers: bool) -> bool:
    """Tell whether a column's numbers must be cut at thresholds before they are groups.

    More than `MANY` values are (of an age, or of a column that is mostly numbers), and ages in single
    years however few: a group of those who are 61 is no group. Codes and decades stay as they are.

    >>> needs_cut(pd.Series([61.0, 62.0, 63.0]), is_age=True, mostly_numbers=True)
    True
    >>> needs_cut(pd.Series([30.0, 40.0, 50.0]), is_age=True, mostly_numbers=True)
    False
    """
    found = np.unique(numbers.dropna().to_numpy(dtype=float))
    if found.size > MANY:
        return is_age or mostly_numbers
    single_years = found.size > 1 and found[-1] > OLDEST_CODE and np.diff(found).min() < 2
    return is_age and bool(single_years)
