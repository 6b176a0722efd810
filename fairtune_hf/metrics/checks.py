"""Check what comes in: labels, scores, weights and group columns, before any number is computed.

Every entry point of the package passes through here, so a fault is reported once, in one wording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fairtune_hf.naming import closest

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GroupCodes:
    """A group column as codes: `names[codes[i]]` is the group of row i."""

    codes: IntArray
    names: tuple[str, ...]


def _numbers(name: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(
            f"{name}: expected one number per row (1 dimension), got shape {array.shape}. "
            f"Pass one column; for class probabilities pass the column of class 1."
        )
    if array.dtype.kind not in "biuf":
        try:
            # Object columns holding numbers are fine; text is not, even if it looks like a number.
            if any(isinstance(value, str | bytes) for value in array.tolist()):
                raise ValueError
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            sample = next((v for v in array.tolist() if not isinstance(v, int | float)), None)
            raise TypeError(
                f"{name}: expected numbers, got {sample!r} (dtype {array.dtype}). "
                f"Convert the column first, for example with pandas.to_numeric."
            ) from None
    return array.astype(np.float64)


def check_labels(values: ArrayLike, *, name: str = "y_true") -> IntArray:
    """Return labels as int64 of 0 and 1, shape (n,).

    Raises:
        TypeError: If the values are not numbers.
        ValueError: If there is no row, or a value other than 0 and 1.
    """
    array = _numbers(name, values)
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one row, got none. Check the split's filter.")
    bad = array[~np.isin(array, (0.0, 1.0))]
    if bad.size:
        raise ValueError(
            f"{name}: expected labels 0 and 1, got {bad[0]:g} in {bad.size} of {array.size} rows. "
            f"Map the two classes to 0 and 1 and drop rows without a label."
        )
    return array.astype(np.int64)


def check_scores(values: ArrayLike, n_rows: int, *, name: str = "y_score") -> FloatArray:
    """Return scores as finite float64, shape (n_rows,).

    Raises:
        TypeError: If the values are not numbers.
        ValueError: If a score is NaN or infinite, or the length differs from `n_rows`.
    """
    array = _numbers(name, values)
    _check_length(name, array.size, n_rows)
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{name}: expected finite scores, got {bad} NaN or infinite of {array.size}. "
            f"A model that gives NaN has diverged; find out before measuring it."
        )
    return array


def check_weights(values: ArrayLike | None, n_rows: int) -> FloatArray | None:
    """Return weights as float64 of shape (n_rows,), or None.

    Raises:
        ValueError: If a weight is negative or not finite, or all of them are 0.
    """
    if values is None:
        return None
    array = _numbers("sample_weight", values)
    _check_length("sample_weight", array.size, n_rows)
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise ValueError(
            "sample_weight: expected finite weights >= 0 that are not all 0, got "
            f"a range of {array.min():g} to {array.max():g}. Correct or leave out the weights."
        )
    return array


def check_threshold(threshold: float | None) -> float:
    """Return the threshold as a finite float, or NaN for None: no threshold.

    Raises:
        ValueError: If it is NaN or infinite.
    """
    if threshold is None:
        return math.nan
    if not np.isfinite(threshold):
        raise ValueError(
            f"threshold: expected a finite number, got {threshold}. Use 0.5 for probabilities."
        )
    return float(threshold)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        ValueError: Otherwise, with the closest match.
    """
    if value in choices:
        return value
    raise ValueError(
        f"{name}: expected one of {', '.join(choices)}, got {value!r}.{closest(value, choices)}"
    )


def group_codes(values: Any, n_rows: int, *, name: str = "sensitive_features") -> GroupCodes:
    """Return the groups of the rows as codes and names, names in sorted order.

    Several columns (a DataFrame, a dict of columns, or a 2-dimensional array) make intersectional
    groups, named "old+female". Numbers are ordered as numbers and named by `str`.

    Raises:
        ValueError: If the length differs from `n_rows` or a value is missing (None, NaN, "").
    """
    columns = _columns(values)
    for column in columns:
        _check_length(name, len(column), n_rows)
        missing = int(missing_groups(column).sum())
        if missing:
            raise ValueError(
                f"{name}: expected a group for each row, got {missing} of {n_rows} without one. "
                f"Drop those rows, or name them as a group of their own, for example 'unknown'."
            )
    joined = columns[0] if len(columns) == 1 else joined_groups([pd.Series(c) for c in columns])
    if not isinstance(joined.dtype, pd.CategoricalDtype):  # which has an order of its own
        joined = np.asarray(joined, dtype=object)  # much faster than a Series of few rows
    codes, uniques = pd.factorize(joined, sort=True)
    return GroupCodes(codes.astype(np.int64), tuple(str(value) for value in uniques))


def joined_groups(columns: list[pd.Series]) -> pd.Series:
    """Return one column of group names from one or several; "" where one of them is missing."""
    missing = np.any([missing_groups(column) for column in columns], axis=0)
    names = [column.astype(object).map(str).to_numpy() for column in columns]
    joined = ["+".join(row) for row in zip(*names, strict=True)]
    return pd.Series(np.where(missing, "", np.array(joined, dtype=object)))


def missing_groups(column: pd.Series | NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows have no group: None, NaN or the empty string."""
    values = np.asarray(column, dtype=object)
    missing = np.asarray(pd.isna(values), dtype=np.bool_)
    missing[~missing] = values[~missing] == ""  # a missing value cannot be compared
    return missing


def _columns(values: Any) -> list[Any]:
    if isinstance(values, pd.DataFrame):
        return [values[name] for name in values.columns]
    if isinstance(values, dict):
        return list(values.values())
    if isinstance(values, pd.Series):
        return [values]
    array = np.asarray(values, dtype=None if isinstance(values, np.ndarray) else object)
    if array.ndim == 2:
        return [array[:, index] for index in range(array.shape[1])]
    return [pd.Series(list(array)) if array.dtype == object else array]


def _check_length(name: str, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(
            f"{name}: expected {expected} rows as in the labels, got {got}. "
            f"Take all columns from the same table."
        )
