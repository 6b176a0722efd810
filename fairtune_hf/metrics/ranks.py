"""Average scores and average ranks of methods over settings, as comparison tables print them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

import numpy as np
import pandas as pd

from fairtune_hf.metrics.checks import check_choice

# Names of tie rules here and in pandas. "competition" is 1, 2, 2, 4.
TIES: dict[str, Literal["average", "min", "max"]] = {
    "average": "average",
    "competition": "min",
    "worst": "max",
}


def rank_methods(
    scores: pd.DataFrame, *, higher_is_better: bool, ties: str = "average"
) -> pd.DataFrame:
    """Rank the methods (columns) within each setting (row); 1 is best.

    Args:
        scores: Shape (settings, methods). A method without a value (NaN) in a setting has no rank.
        higher_is_better: True for AUCs, False for gaps and differences.
        ties: "average" gives tied methods the mean of their places, "competition" the best one,
            "worst" the last one. FairTune's tables mix the first two.

    Raises:
        ValueError: If the tie rule is unknown or there is no method.

    Example:
        >>> table = pd.DataFrame({"a": [0.9], "b": [0.9], "c": [0.8]})
        >>> rank_methods(table, higher_is_better=True).iloc[0].tolist()
        [1.5, 1.5, 3.0]
        >>> rank_methods(table, higher_is_better=True, ties="competition").iloc[0].tolist()
        [1.0, 1.0, 3.0]
    """
    check_choice("ties", ties, tuple(TIES))
    _check_methods(scores)
    return scores.rank(axis=1, method=TIES[ties], ascending=not higher_is_better)


def average_ranks(
    scores: pd.DataFrame, *, higher_is_better: bool, ties: str = "average"
) -> pd.Series:
    """Return each method's rank averaged over the settings where it has one; lower is better.

    Raises:
        ValueError: If the tie rule is unknown or there is no method.

    Example:
        >>> table = pd.DataFrame({"a": [0.9, 0.6], "b": [0.8, 0.7]})
        >>> average_ranks(table, higher_is_better=True).to_dict()
        {'a': 1.5, 'b': 1.5}
    """
    return rank_methods(scores, higher_is_better=higher_is_better, ties=ties).mean(axis=0)


def average_scores(scores: pd.DataFrame) -> pd.Series:
    """Return each method's score averaged over the settings where it has one.

    Raises:
        ValueError: If there is no method.

    Example:
        >>> average_scores(pd.DataFrame({"a": [0.5, 1.0], "b": [0.25, 0.75]})).to_dict()
        {'a': 0.75, 'b': 0.5}
    """
    _check_methods(scores)
    return scores.mean(axis=0)


def round_half_up(value: float, digits: int = 1) -> float:
    """Round as printed tables do: a half goes away from 0, in decimal.

    Binary noise below 1e-9 is taken off first, so that a mean of 76.15 that is stored as
    76.1499999999 prints as 76.2. NaN stays NaN.

    Example:
        >>> round_half_up(76.15), round(76.15, 1)
        (76.2, 76.2)
        >>> round_half_up(0.25), round(0.25, 1)
        (0.3, 0.2)
    """
    if not np.isfinite(value):
        return float(value)
    decimal = Decimal(repr(round(float(value), 9)))
    return float(decimal.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


def _check_methods(scores: pd.DataFrame) -> None:
    if scores.shape[1] == 0:
        raise ValueError(
            "scores: expected one column per method, got no column. "
            "Arrange the table as settings x methods."
        )
