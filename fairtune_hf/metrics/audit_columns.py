"""A stranger's columns as labels and groups, by the rules that data sets go by.

Owns which columns an audit's groups come of, what counts as unknown, and which word is label 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fairtune_hf.ages import (
    BOUNDARIES,
    DEFAULT_THRESHOLD,
    MANY,
    bin_values,
    is_age_name,
    needs_cut,
    parse_thresholds,
    read_ages,
    threshold_groups,
    without_impossible,
)
from fairtune_hf.described import described
from fairtune_hf.label_values import binary_label, missing_label, say_positive
from fairtune_hf.metrics.checks import IntArray, check_choice, check_labels, joined_groups
from fairtune_hf.unknown_values import say_unknown, unknown_mask

UNKNOWN_POLICIES = ("drop", "group", "error")


@dataclass(frozen=True, kw_only=True)
class ColumnRules:
    """What the user decides about the columns."""

    positive_label: str = described("", "Value of the label that is 1.")
    age_threshold: str = described(DEFAULT_THRESHOLD, "Cuts of ages.")
    age_boundary: str = described("gt", "gt: an age at a cut is in the lower group; ge: upper.")
    unknown: str = described("drop", "Rows of unknown groups: drop, group or error.")

    def __post_init__(self) -> None:
        check_choice("age_boundary", self.age_boundary, BOUNDARIES)
        check_choice("unknown", self.unknown, UNKNOWN_POLICIES)
        parse_thresholds(self.age_threshold)


def split_attributes(given: str | Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """Return the columns of each attribute: `sex,age` are two, `sex+age` is one of crossed groups.

    A list of names is one attribute, crossed. A name that a column has, whatever its signs, is that column.

    Raises:
        ValueError: If no column is named, or one twice in an attribute.

    Example:
        >>> split_attributes("sex, age+skin", ["sex", "age", "skin"])
        [['sex'], ['age', 'skin']]
    """
    if not isinstance(given, str):
        found = [list(given)]
    elif given in columns:
        found = [[given]]
    else:
        words = [word.strip() for word in given.split(",") if word.strip()]
        found = [[w] if w in columns else [p.strip() for p in w.split("+")] for w in words]
    if not found or not all(all(parts) and parts for parts in found):
        raise ValueError(
            f"sensitive_column: expected names of columns, such as sex or sex,age or sex+age, got {given!r}."
        )
    for parts in found:
        if len(set(parts)) < len(parts):
            raise ValueError(
                f"sensitive_column: expected different columns in a crossing, got {'+'.join(parts)!r}. Name each once."
            )
    return list({"+".join(parts): parts for parts in found}.values())


def label_values(
    values: pd.Series, name: str, rules: ColumnRules
) -> tuple[IntArray, tuple[str, str] | None, list[str]]:
    """Return labels as 0 and 1, the words they stand for (None for numbers) and what to say of them.

    Raises:
        ValueError: If a label is missing, there are more values than two, or numbers other than 0 and
            1 without a `positive_label`.
    """
    are_words = not pd.api.types.is_numeric_dtype(values.infer_objects())
    if not are_words and not rules.positive_label:
        return check_labels(values.to_numpy(), name=name), None, []
    missing = int(missing_label(values).sum())
    if missing:
        raise ValueError(
            f"{name}: expected a label in each row, got {missing} of {len(values)} without one. "
            f"Drop rows without a label."
        )
    if values.astype("string").str.strip().nunique() < 2:
        raise ValueError(
            f"{name}: expected both classes, got {values.iloc[0]!r} in all {len(values)} rows. "
            f"Nothing can be measured on one class; take the whole split."
        )
    labels, names = binary_label(values, name, rules.positive_label)
    notes = [] if rules.positive_label else say_positive(names, name)
    return labels.to_numpy(dtype=np.int64), names, notes


def attribute_groups(
    frame: pd.DataFrame, parts: Sequence[str], rules: ColumnRules
) -> tuple[pd.Series, list[str]]:
    """Return the group of each row, "" where unknown, and what to say of the columns.

    Raises:
        ValueError: If a column has too many values for groups, or unknown ones under "error".
    """
    columns, notes = [], []
    for name in parts:
        groups, told = _one_attribute(frame[name].reset_index(drop=True), name, rules)
        columns.append(groups)
        notes += told
    return joined_groups(columns), notes


def _one_attribute(values: pd.Series, name: str, rules: ColumnRules) -> tuple[pd.Series, list[str]]:
    unknown = unknown_mask(values, name)
    notes = say_unknown(values, name)
    text = values.astype(object).map(str).str.strip().where(~unknown, "")
    groups, told = _groups(text, name, rules)
    return _settle_unknown(groups, name, rules), notes + told


def _groups(text: pd.Series, name: str, rules: ColumnRules) -> tuple[pd.Series, list[str]]:
    """Return groups of known values as text: numbers cut where they must be, else as they are."""
    is_age = is_age_name(name)
    if is_age:
        numbers, notes = read_ages(text)
    else:
        numbers, notes = pd.to_numeric(text.where(text != ""), errors="coerce").astype(float), []
    mostly_numbers = bool(numbers.notna().sum() > (text != "").sum() / 2)
    if mostly_numbers and needs_cut(numbers, is_age=is_age, mostly_numbers=True):
        cuts = parse_thresholds(rules.age_threshold)
        named = ", ".join(threshold_groups(cuts, rules.age_boundary))
        notes.append(f"{name!r} holds many numbers and is cut into {named}.")
        return bin_values(numbers, cuts, rules.age_boundary), notes
    text, notes = without_impossible(text, name) if is_age else (text, [])
    found = text[text != ""].value_counts()
    if len(found) > 2 * MANY:
        shown = ", ".join(f"{value!r}: {n}" for value, n in found.head(8).items())
        raise ValueError(
            f"{name}: expected a few groups, got {len(found)} values ({shown}, and more). "
            f"Choose another column, or merge values into a new one."
        )
    return text, notes


def _settle_unknown(groups: pd.Series, name: str, rules: ColumnRules) -> pd.Series:
    missing = groups == ""
    if not missing.any() or rules.unknown == "drop":
        return groups
    if rules.unknown == "error":
        raise ValueError(
            f"{name}: expected a known value in each row, got {int(missing.sum())} of "
            f"{len(groups)} unknown. Fill them in, or choose unknown=drop or group."
        )
    return groups.where(~missing, "unknown")
